"""upvec beneath the interfaces of other projects; each module needs the extra of its name.

``langchain``, ``llama_index`` and ``haystack`` are what users import. They share ``documents.py``,
how texts with metadata lie in a collection, and ``filters.py``, how conditions on metadata become
conditions of a collection.
"""
