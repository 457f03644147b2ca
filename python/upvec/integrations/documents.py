"""Texts with metadata and a vector, as rows of a collection: what the integrations share.

Metadata without a schema lies in one json field. A metadatum that is often filtered on, or that
should be checked, gets a field of its own: ``fields=`` of a new collection, or any schema that the
user opened a collection with.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from upvec.collection import Collection
from upvec.errors import DimensionError, InvalidRowError, SchemaError
from upvec.expression import FieldRef
from upvec.fields import ABSENT, Field, Vector
from upvec.policy import Policy
from upvec.result import Outcome
from upvec.schema import EXTRA, Schema

from .handles import MEMORY, borrow, give_back, is_stored

if TYPE_CHECKING:
    from upvec.expression import Expression
    from upvec.result import Hits, Rows, UpsertResult

    from .filters import Ref

__all__ = ["Documents", "Layout", "vectors_of"]

KEY: Final = "id"
TEXT: Final = "text"
METADATA: Final = "metadata"
EMBEDDING: Final = "embedding"


@dataclass(frozen=True)
class Layout:
    """Which field of a collection holds what of a document.

    Attributes
    ----------
    key, text, vector : str
        The primary key, which is a string; the text; the vector.
    rest : str or None
        The json field of the metadata that have no field of their own.
    declared : tuple of str
        The metadata that have one.
    """

    key: str
    text: str
    vector: str
    rest: str | None
    declared: tuple[str, ...]

    @classmethod
    def of(
        cls, schema: Schema, *, text: str, vector: str | None, own: Iterable[str] = ()
    ) -> Layout:
        """Find out how documents lie in a collection of this schema.

        Parameters
        ----------
        schema : Schema
            Of the collection.
        text : str
            The field of the text.
        vector : str or None
            The vector field; may be left out if there is only one.
        own : iterable of str
            Fields that are neither of these, nor metadata.

        Raises
        ------
        SchemaError
            Documents cannot lie in it.
        """
        key = schema.primary
        if key.type != "string":
            message = f"the primary key {key.name!r} is {key.type}; documents have strings as ids"
            raise SchemaError(message)
        if text not in schema.fields or schema.fields[text].type != "string":
            known = ", ".join(name for name, kind in schema.types.items() if kind == "string")
            raise SchemaError(f"no string field {text!r} for the text; there are: {known}")
        if vector is None and len(schema.vectors) == 1:
            vector = next(iter(schema.vectors))
        if vector is None or vector not in schema.vectors:
            known = ", ".join(schema.vectors) or "none"
            raise SchemaError(f"vector field {vector!r}: the vector fields are: {known}")
        rest = EXTRA if schema.extra == "store" else None
        if METADATA in schema.fields and schema.fields[METADATA].type == "json":
            rest = METADATA
        others = {key.name, text, vector, rest, EXTRA, *own, *schema.vectors}
        declared = tuple(name for name in schema.names if name not in others)
        return cls(key.name, text, vector, rest, declared)

    def ref(self, path: tuple[str, ...]) -> Ref:
        """Return where the metadatum of a path is.

        Raises
        ------
        SchemaError
            Nowhere.
        """
        if path[0] in self.declared:
            ref: Ref = FieldRef(path[0])
            path = path[1:]
        elif self.rest is not None:
            ref = FieldRef(self.rest)
        else:
            known = ", ".join(self.declared) or "none"
            raise SchemaError(f"unknown metadatum {path[0]!r}; those of the schema are: {known}")
        for name in path:
            ref = ref[name]
        return ref

    @property
    def written(self) -> tuple[str, ...]:
        """The fields that a document is made of, but for the key."""
        rest = () if self.rest is None else (self.rest,)
        return (self.text, self.vector, *rest, *self.declared)


class Documents:
    """Documents in a collection, which is made when the first vector tells its dimension.

    Parameters
    ----------
    path : str or path, optional
        The directory of the collection; by default it is kept in memory. All of a process that
        name the same share a handle.
    collection : Collection, optional
        One that is open, in place of a path.
    metric : str, optional
        Of a new collection; ``"cosine"`` by default.
    dim : int, optional
        Of a new collection; with it, the collection is made at once.
    fields : sequence of Field
        Metadata of a new collection that get fields of their own. What was made before must agree
        with metric, dim and fields, as far as they are given.
    own : sequence of Field
        Fields of a new collection that are not metadata; of an open one, those that it has.
    nullable : bool
        Whether a document of a new collection may be without text and without vector.
    text_field, vector_field : str
        What the collection calls them.

    Raises
    ------
    SchemaError
        Documents cannot lie in the collection.
    ValueError
        Both a path and a collection.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        collection: Collection | None = None,
        *,
        metric: str | None = None,
        dim: int | None = None,
        fields: Sequence[Field] = (),
        own: Sequence[Field] = (),
        nullable: bool = False,
        text_field: str = TEXT,
        vector_field: str | None = None,
    ) -> None:
        if path is not None and collection is not None:
            raise ValueError(f"got path={path!r} and a collection, wanted one of the two")
        given: object = collection
        if given is not None and not isinstance(given, Collection):
            message = f"collection: got {type(given).__name__}, wanted what upvec.open() gives"
            raise TypeError(message)
        self._path = MEMORY if path is None else os.fsdecode(path)
        self._metric, self._dim, self._nullable = metric, dim, nullable
        self._fields = tuple(fields)
        self._own = {field.name: field for field in own}
        self._text_field, self._vector_field = text_field, vector_field
        self._making = threading.Lock()
        self._borrowed = False
        self._collection = collection
        if collection is not None:
            self._check(collection.schema)
        elif dim is not None or is_stored(self._path):
            self.ready(dim or 0)

    # --- The collection -----------------------------------------------------------------------

    @property
    def collection(self) -> Collection | None:
        """The collection; None as long as no vector has told its dimension."""
        if self._collection is None and is_stored(self._path):  # another store has made it
            self.ready(0)
        return self._collection

    @property
    def layout(self) -> Layout:
        """How documents lie in the collection, which must have been made."""
        return self._layout_of(self.opened.schema)

    @property
    def opened(self) -> Collection:
        """The collection.

        Raises
        ------
        SchemaError
            It was not made yet.
        """
        collection = self.collection
        if collection is None:
            raise SchemaError("there is no collection yet: the first vector tells its dimension")
        return collection

    def ready(self, dim: int) -> Collection:
        """Return the collection, made for vectors of this dimension if there is none.

        Raises
        ------
        SchemaError, LockedError, CorruptionError
            Documents cannot lie in it, or it cannot be opened.
        """
        with self._making:
            if self._collection is None:
                schema = None if is_stored(self._path) else self._schema(dim)
                collection = borrow(self._path, schema)
                try:
                    self._check(collection.schema)
                except BaseException:
                    give_back(collection)
                    raise
                self._collection = collection
                self._borrowed = True
            return self._collection

    def close(self) -> None:
        """Close the collection, unless it came open, or another store of this path uses it."""
        with self._making:
            if self._borrowed and self._collection is not None:
                self._borrowed = False
                give_back(self._collection)

    def has(self, name: str) -> bool:
        """Return whether the collection has a field that is no metadatum."""
        return name in self._own and name in self.opened.schema.fields

    def _schema(self, dim: int) -> Schema:
        null = self._nullable
        return Schema(
            Field(KEY, "string", primary=True),
            Field(self._text_field, "string", nullable=null),
            Field(METADATA, "json", default={}),
            *self._fields,
            *self._own.values(),
            Vector(
                self._vector_field or EMBEDDING,
                dim,
                metric=self._metric or "cosine",
                source=self._text_field,
                nullable=null,
            ),
        )

    def _check(self, schema: Schema) -> None:
        """Refuse a collection in which these documents cannot lie."""
        vector = schema.vectors[self._layout_of(schema).vector]
        for name, got in (("metric", vector.metric), ("dim", vector.dim)):
            want = getattr(self, f"_{name}")
            if want is not None and got != want:
                message = f"vector field {vector.name!r} has {name}={got!r}, and not {want!r}"
                raise SchemaError(message)
        for field in self._fields:
            if schema.fields.get(field.name) != field:
                message = f"the collection has no {field!r}; Collection.alter() adds fields"
                raise SchemaError(message)

    def _layout_of(self, schema: Schema) -> Layout:
        return Layout.of(schema, text=self._text_field, vector=self._vector_field, own=self._own)

    # --- Writing ------------------------------------------------------------------------------

    def write(
        self,
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[Mapping[str, Any]],
        vectors: Any,
        *,
        own: Mapping[str, Any] | None = None,
        policy: str | Policy | None = None,
        duplicates: str = "last",
        insert: bool = False,
    ) -> UpsertResult:
        """Store documents, in one commit.

        Parameters
        ----------
        ids, texts, metadatas : sequences (n,)
            The documents.
        vectors : ndarray, float (n, dim), or list of n vectors or None
            Theirs.
        own : mapping of str to column
            Fields that are not metadata; those that the collection lacks are left out.
        policy : str or Policy
            By default a stored document becomes the new one, whatever the rules of the schema;
            what is neither text, vector nor metadata is kept.
        duplicates : str
            Of documents with the same id, as for :meth:`Collection.upsert`.
        insert : bool
            A document whose id is stored is a conflict.

        Raises
        ------
        InvalidRowError, DimensionError, ConflictError
            As :meth:`Collection.upsert`, and for metadata that the schema has no place for.
        """
        layout = self.layout
        columns: dict[str, Any] = {
            layout.key: list(ids),
            layout.text: list(texts),
            layout.vector: vectors,
            **self.metadata_columns(metadatas),
            **{name: column for name, column in (own or {}).items() if self.has(name)},
        }
        if insert:
            return self.opened.insert(columns, duplicates=duplicates)
        policy = self.replacing() if policy is None else policy
        result: UpsertResult = self.opened.upsert(columns, policy=policy, duplicates=duplicates)
        return result

    def metadata_columns(self, metadatas: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return metadata by field: those that are declared, and the others in one.

        Raises
        ------
        InvalidRowError
            There is no place for one.
        """
        return _metadata_columns(self.opened.schema, self.layout, metadatas)

    def replacing(self) -> Policy:
        """Return the policy by which what a document brings takes the place of what is stored."""
        return Policy(merge=dict.fromkeys(self.layout.written, "replace"))

    # --- Reading ------------------------------------------------------------------------------

    def read(self, ids: Sequence[str], *, vectors: bool = False) -> Rows | None:
        """Return documents by id, in order; None if there is no collection yet."""
        if self.collection is None:
            return None
        return self.opened.get(list(ids), fields=self._read_fields(vectors=vectors))

    def scan(
        self, where: Expression | str | None = None, *, vectors: bool = False
    ) -> Iterator[Rows]:
        """Iterate over the documents that fulfil a condition, in batches."""
        if self.collection is None:
            return iter(())
        return self.opened.scan(where=where, fields=self._read_fields(vectors=vectors))

    def search(self, query: Any, k: int, *, vectors: bool = False, **options: Any) -> Hits | None:
        """Return the documents nearest to a vector; None if there are none to look for.

        ``options`` are those of :meth:`Collection.search`.
        """
        if k < 1 or self.collection is None:
            return None
        query = np.asarray(query, dtype=np.float32)
        return self.opened.search(
            query,
            k,
            field=self.layout.vector,
            fields=self._read_fields(vectors=vectors),
            **options,
        )

    def metadatas(self, rows: Rows) -> list[dict[str, Any]]:
        """Return the metadata of documents, as dicts of their own."""
        layout = self.layout
        found: list[dict[str, Any]] = [{} for _ in range(len(rows))]
        if layout.rest is not None:
            found = [dict(cell) if cell else {} for cell in rows[layout.rest].tolist()]
        for name in layout.declared:
            if name not in rows:
                continue
            null = rows.null(name)
            for metadata, value, absent in zip(
                found, rows[name].tolist(), null.tolist(), strict=True
            ):
                if not absent:
                    metadata[name] = value
        return found

    def delete(
        self, ids: Sequence[str] | None = None, where: Expression | str | None = None
    ) -> list[str]:
        """Remove documents, in one commit; return the ids of those that were there."""
        if self.collection is None:
            return []
        result = self.opened.delete(None if ids is None else list(ids), where=where)
        keys = result.key
        if keys is None:
            return []
        gone: list[str] = keys[result.status == Outcome.DELETED].tolist()
        return gone

    def count(self, where: Expression | str | None = None) -> int:
        """Return how many documents there are, or how many fulfil a condition."""
        return 0 if self.collection is None else self.opened.count(where)

    def everything(self) -> Expression:
        """Return the condition that all documents fulfil."""
        return ~FieldRef(self.layout.key).is_null()

    def _read_fields(self, *, vectors: bool) -> list[str]:
        layout = self.layout
        names = {layout.key, *layout.written}
        if not vectors:
            names.discard(layout.vector)
        own = [name for name in self._own if self.has(name)]
        return [name for name in self.opened.schema.names if name in names or name in own]


def vectors_of(vectors: Sequence[Sequence[float] | None]) -> Any:
    """Return vectors that came as lists: float32 (n, dim), or a list where some are None.

    Raises
    ------
    DimensionError
        They differ in length.
    """
    there = [vector for vector in vectors if vector is not None]
    if len(there) == len(vectors):
        return _matrix(there)
    if not there:
        return [None] * len(vectors)
    rows = iter(_matrix(there))
    return [None if vector is None else next(rows) for vector in vectors]


def _matrix(vectors: Sequence[Sequence[float]]) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except ValueError:
        lengths = [len(vector) for vector in vectors]
        row = next((at for at, length in enumerate(lengths) if length != lengths[0]), None)
        if row is None:
            raise
        message = f"vector {row} has dim {lengths[row]}, and the first has {lengths[0]}"
        raise DimensionError(message, got=lengths[row], want=lengths[0], rows=[row]) from None
    if array.ndim != 2:
        raise DimensionError(f"vectors have shape {array.shape}, wanted (n, dim)")
    return array


def _metadata_columns(
    schema: Schema, layout: Layout, metadatas: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """Return metadata by field: those that are declared, and the others in one."""
    columns: dict[str, list[Any]] = {}
    for name in layout.declared:
        default = schema.fields[name].default
        default = None if default is ABSENT else default
        column = [metadata.get(name, default) for metadata in metadatas]
        if schema.types[name] == "timestamp":
            column = [_moment(value) if isinstance(value, str) else value for value in column]
        columns[name] = column
    known = frozenset(layout.declared)
    if layout.rest is None and schema.extra == "ignore":
        return columns
    # A null that is said is kept beside the field, in which it looks like one that is not.
    says_null = layout.rest is not None and layout.rest != EXTRA
    rest = [
        {
            name: value
            for name, value in metadata.items()
            if name not in known or (value is None and says_null)
        }
        for metadata in metadatas
    ]
    _check_names(layout, rest)
    if layout.rest is not None:
        columns[layout.rest] = rest
    return columns


def _moment(text: str) -> Any:
    """Return the time that a string in ISO 8601 says; what is none is refused later."""
    try:
        return dt.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    except ValueError:
        return text


def _check_names(layout: Layout, metadatas: Sequence[Mapping[str, Any]]) -> None:
    for row, metadata in enumerate(metadatas):
        names: Iterable[object] = metadata
        for name in names:
            if not isinstance(name, str):
                message = f"document {row}: got {name!r} as the name of a metadatum"
                raise InvalidRowError(f"{message}, wanted a string", rows=[row], got=name)
            if layout.rest is None:
                known = ", ".join(layout.declared) or "none"
                message = f"document {row}: the schema has no field for the metadatum {name!r}"
                message = f"{message}; it has {known}, and no json field {METADATA!r} for others"
                raise InvalidRowError(message, rows=[row], field=name, got=metadata[name])
