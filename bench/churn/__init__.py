"""What many turnovers of all keys do to the graph of an index."""
