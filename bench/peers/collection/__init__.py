"""Stores of records beside each other: load, upsert, search under a condition, delete, reopen."""
