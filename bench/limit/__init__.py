"""How near search is to what memory allows: python -m bench.limit --help."""
