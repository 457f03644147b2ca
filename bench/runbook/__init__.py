"""Runbooks of the streaming track of NeurIPS'23: what is inserted, deleted, replaced and when."""
