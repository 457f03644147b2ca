"""LlamaIndex's nodes ↔ what a row has of them.

A node is its text, its metadata, its vector, and the rest: relations, kind, templates. The rest
goes to the json field ``node``; without that, as in a collection that others fill, a row is a
``TextNode``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

__all__ = ["node_of", "rest_of", "text_of"]

_CONTENT, _KIND = "_node_content", "_node_type"


def text_of(node: BaseNode) -> str:
    """Return the text of a node, without its metadata."""
    text: str = node.get_content(metadata_mode=MetadataMode.NONE)
    return text


def rest_of(node: BaseNode) -> dict[str, Any]:
    """Return what a node has besides text, metadata and vector."""
    described = node_to_metadata_dict(node, remove_text=True, flat_metadata=False)
    content = json.loads(described[_CONTENT])
    for name in ("metadata", "embedding"):
        content.pop(name, None)
    return {"kind": described[_KIND], "content": content}


def node_of(
    key: str,
    text: str,
    metadata: Mapping[str, Any],
    *,
    rest: Mapping[str, Any] | None,
    document: str | None,
    embedding: list[float] | None,
) -> BaseNode:
    """Return the node that a row is."""
    if rest is None:
        node: BaseNode = TextNode(id_=key, text=text, metadata=dict(metadata))
        if document is not None:
            node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    else:
        content = {**rest["content"], "metadata": dict(metadata)}
        described = {_CONTENT: json.dumps(content, default=str), _KIND: rest["kind"]}
        node = metadata_dict_to_node(described, text=text)
    node.embedding = embedding
    return node
