"""What a collection holds: its fields, and what must hold between its rows.

A schema is immutable, and is checked when it is made: what it accepts is carried out.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from . import toml
from .errors import SchemaError
from .fields import KEY_TYPES, Field, Unique, Vector
from .merge import MergeRule, merge_map

__all__ = ["EXTRA", "Schema"]

MAX_FIELDS: Final = 4_096
# The last numbers are those of what is no field; see storage.py.
MAX_NUMBER: Final = 0xFF00

EXTRA: Final = "_extra"
"""The field of what a schema does not know, if it stores that."""

_CLOCK_TYPES: Final = ("int64", "float64", "timestamp", "string")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(r"[1-9][0-9]{0,8}[smhdw]")


class Schema:
    """The fields of a collection, and what must hold between its rows.

    Parameters
    ----------
    *fields : Field or Vector
        In the order in which rows show them. Exactly one field is the primary key.
    unique : sequence of Unique
        Further keys; each can be matched on with ``on=``.
    order_by : str
        A field that says how new a row is: a row with a smaller value than the stored one comes
        late, and changes only fields whose rule is order-free, such as :func:`sum_`. Of a row
        that is deleted, the key and this value are kept for as long as it does not come again.
    groups : mapping of str to sequence of str
        Fields that have a clock of their own: ``{"price_ts": ["price"]}`` writes ``price`` where
        ``price_ts`` is not older than the stored one, whatever ``order_by`` says.
    ttl : (str, str)
        A timestamp field, and for how long after it a row lives: a number and one of
        ``s m h d w``, as ``("seen_at", "90d")``.
    extra : str
        What to do with a field that the schema does not know: ``"reject"`` the batch, ``"ignore"``
        the field, or ``"store"`` it with all others of its kind in the json field ``_extra``, which
        the schema then has. There, as by :func:`merge_map`, a field that comes in takes the place
        of the stored one, and null takes it out; rows as dicts show them beside the other fields.

    Attributes
    ----------
    fields, vectors : dict of str to Field, Vector
        By name, in order.
    primary : Field
        The primary key.
    unique : dict of str to Unique
        By name.
    types : dict of str to str
        The type of every field, ``"vector"`` for vectors: what expressions are checked against.
    numbers : dict of str to int
        What files call each field: a number that stays when the field is renamed, and that no
        other field gets when it is dropped.
    next_number : int
        The number of the next field that is added.
    clocks : dict of str to str
        Of each field that has one, the field that says how new it is.

    Raises
    ------
    SchemaError
        Names clash, the primary key is missing or double, a constraint names an unknown
        field, or something is asked for that is not supported yet.

    Examples
    --------
    >>> schema = Schema(Field("id", "string", primary=True), Field("age", "int64", default=0),
    ...                 Vector("emb", 4, metric="cosine"))
    >>> schema.primary.name, list(schema.vectors)
    ('id', ['emb'])
    >>> Schema.from_dict(schema.to_dict()) == schema
    True
    """

    __slots__ = (
        "clocks",
        "extra",
        "fields",
        "groups",
        "names",
        "next_number",
        "numbers",
        "order_by",
        "primary",
        "ttl",
        "types",
        "unique",
        "vectors",
    )

    def __init__(
        self,
        *fields: Field | Vector,
        unique: Iterable[Unique] = (),
        order_by: str | None = None,
        groups: Mapping[str, Iterable[str]] | None = None,
        ttl: tuple[str, str] | None = None,
        extra: str = "reject",
    ) -> None:
        for item in fields:
            if not isinstance(item, (Field, Vector)):
                raise SchemaError(f"a schema is made of Field and Vector, got {item!r}")
        if extra not in {"reject", "ignore", "store"}:
            raise SchemaError(f"extra={extra!r}; wanted 'reject', 'ignore' or 'store'")
        if extra == "store":
            fields = (*fields, Field(EXTRA, "json", nullable=True, merge=merge_map()))
        if len(fields) > MAX_FIELDS:
            raise SchemaError(f"{len(fields)} fields; at most {MAX_FIELDS} are allowed")
        self.extra = extra
        self.names = tuple(item.name for item in fields)
        for name in self.names:
            if self.names.count(name) > 1:
                raise SchemaError(f"field {name!r} is declared twice")
        self.fields = {item.name: item for item in fields if isinstance(item, Field)}
        self.vectors = {item.name: item for item in fields if isinstance(item, Vector)}
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.next_number = len(self.names)
        self.types = {item.name: getattr(item, "type", "vector") for item in fields}
        primary = [field for field in self.fields.values() if field.primary]
        if len(primary) != 1:
            got = ", ".join(field.name for field in primary) or "none"
            raise SchemaError(f"a schema has exactly one field with primary=True, got {got}")
        self.primary = primary[0]
        self.unique = self._checked_unique(unique)
        self.order_by = order_by
        self.groups = {clock: tuple(members) for clock, members in (groups or {}).items()}
        self.clocks = self._checked_clocks()
        self.ttl = None if ttl is None else self._checked_ttl(*ttl)
        for vector in self.vectors.values():
            for name in vector.source:
                if name not in self.fields:
                    raise SchemaError(f"{vector!r}: unknown source {name!r}")
        self.check_weights({name: self.rule(name) for name in self.names})

    def numbered(self, numbers: Mapping[str, int], next_number: int) -> Schema:
        """Return the same schema, whose fields files call by these numbers.

        Raises
        ------
        SchemaError
            The numbers are not those of different fields.
        """
        if set(numbers) != set(self.names) or len(set(numbers.values())) < len(self.names):
            raise SchemaError(f"numbers of fields: got {dict(numbers)!r} for {self.names}")
        if not max(numbers.values(), default=-1) < next_number <= MAX_NUMBER:
            message = f"the next field would have number {next_number}; at most {MAX_NUMBER}"
            raise SchemaError(message)
        same = copy.copy(self)
        same.numbers = {name: numbers[name] for name in self.names}
        same.next_number = next_number
        return same

    @property
    def declared(self) -> tuple[str, ...]:
        """The names of the fields, without that of those which the schema does not know."""
        stores = self.extra == "store"
        return tuple(name for name in self.names if not (stores and name == EXTRA))

    def rule(self, name: str) -> MergeRule:
        """Return the merge rule of a field."""
        return (self.vectors.get(name) or self.fields[name]).merge

    def check_weights(self, rules: Mapping[str, MergeRule]) -> None:
        """Refuse rules that go by a field which does not count.

        Raises
        ------
        SchemaError
        """
        for name, rule in rules.items():
            weight = rule.weight
            if weight is None:
                continue
            fits = weight in self.fields and self.fields[weight].type in {"int64", "float64"}
            if not fits or rules.get(weight, self.rule(weight)).name != "sum_":
                message = f"field {name!r}: {rule!r} wants a number field with merge=sum_()"
                raise SchemaError(message)

    def _checked_clocks(self) -> dict[str, str]:
        clocks: dict[str, str] = {}
        for clock, members in self.groups.items():
            self._check_clock(clock, f"groups={{{clock!r}: ...}}")
            for name in (clock, *members):
                if name not in self.types:
                    raise SchemaError(f"groups: unknown field {name!r}")
                if name in clocks or name == self.order_by:
                    raise SchemaError(f"groups: field {name!r} has two clocks")
                if name == self.primary.name:
                    raise SchemaError(f"groups: the primary key {name!r} never changes")
                clocks[name] = clock
        if self.order_by is not None:
            self._check_clock(self.order_by, f"order_by={self.order_by!r}")
            others = [name for name in self.names if name not in clocks]
            clocks |= {name: self.order_by for name in others if name != self.primary.name}
        return clocks

    def _check_clock(self, name: str, where: str) -> None:
        if name not in self.fields:
            raise SchemaError(f"{where}: unknown field {name!r}")
        if self.fields[name].type not in _CLOCK_TYPES or name == self.primary.name:
            kind = "the primary key" if name == self.primary.name else self.fields[name].type
            raise SchemaError(f"{where}: {name!r} is {kind}; wanted {' '.join(_CLOCK_TYPES)}")

    def _checked_ttl(self, name: str, span: str) -> tuple[str, str]:
        if name not in self.fields or self.fields[name].type != "timestamp":
            raise SchemaError(f"ttl: {name!r} is no timestamp field")
        given: object = span
        if not isinstance(given, str) or _SPAN.fullmatch(given) is None:
            raise SchemaError(f"ttl: got {span!r}, wanted a number and one of s m h d w, as '90d'")
        return name, span

    @property
    def lifetime(self) -> np.timedelta64 | None:
        """How long after the timestamp that ``ttl`` names a row lives."""
        if self.ttl is None:
            return None
        span = self.ttl[1]
        return np.timedelta64(int(span[:-1]) * _SECONDS[span[-1]] * 1_000_000, "us")

    def _checked_unique(self, unique: Iterable[Unique]) -> dict[str, Unique]:
        checked: dict[str, Unique] = {}
        for constraint in unique:
            if not isinstance(constraint, Unique):
                raise SchemaError(f"unique= wants Unique(...), got {constraint!r}")
            for name in constraint.fields:
                if name not in self.fields:
                    raise SchemaError(f"{constraint!r}: unknown field {name!r}")
                if self.fields[name].type not in KEY_TYPES:
                    kind = self.fields[name].type
                    raise SchemaError(f"{constraint!r}: {name!r} is {kind}, which is no key")
            if constraint.fields == (self.primary.name,):
                raise SchemaError(f"{constraint!r}: the primary key is unique already")
            name = constraint.name
            if name in checked or (name in self.names and constraint.fields != (name,)):
                raise SchemaError(f"{constraint!r}: the name {name!r} is taken")
            checked[name] = constraint
        return checked

    def key_fields(self, on: str) -> tuple[str, ...]:
        """Return the fields of the key that ``on`` names.

        Raises
        ------
        SchemaError
            ``on`` is neither the primary key nor a Unique.
        """
        if on == self.primary.name:
            return (on,)
        if on in self.unique:
            return self.unique[on].fields
        known = ", ".join([self.primary.name, *self.unique])
        raise SchemaError(f"on={on!r} names no key; keys: {known}")

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as a dict of JSON values, in the order of the fields."""
        whole = self._described()
        numbers = [self.numbers[name] for name in self.names]
        if numbers != list(range(self.next_number)):
            whole["numbers"] = numbers
            whole["next_number"] = self.next_number
        return whole

    def _described(self) -> dict[str, Any]:
        """Return what a user declares: all but what files call the fields."""
        described = []
        for name in self.declared:
            if name in self.vectors:
                described.append({"vector": self.vectors[name].to_dict()})
            else:
                described.append({"field": self.fields[name].to_dict()})
        whole: dict[str, Any] = {
            "fields": described,
            "unique": [constraint.to_dict() for constraint in self.unique.values()],
            "extra": self.extra,
        }
        if self.order_by is not None:
            whole["order_by"] = self.order_by
        if self.groups:
            whole["groups"] = {clock: list(members) for clock, members in self.groups.items()}
        if self.ttl is not None:
            whole["ttl"] = list(self.ttl)
        return whole

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Schema:
        """Return the schema that :meth:`to_dict` described.

        Raises
        ------
        SchemaError
            The dict does not describe a schema.
        """
        try:
            fields: list[Field | Vector] = [
                Vector.from_dict(item["vector"])
                if "vector" in item
                else Field.from_dict(item["field"])
                for item in described["fields"]
            ]
            unique = [Unique.from_dict(item) for item in described["unique"]]
            schema = cls(
                *fields,
                unique=unique,
                order_by=described.get("order_by"),
                groups=described.get("groups"),
                ttl=described.get("ttl"),
                extra=described["extra"],
            )
            if "numbers" not in described:
                return schema
            numbers = dict(zip(schema.names, described["numbers"], strict=True))
            return schema.numbered(numbers, described["next_number"])
        except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
            if isinstance(error, SchemaError):
                raise
            raise SchemaError(f"not the description of a schema: {error!r}") from None

    @classmethod
    def infer(cls, table: Any, *, primary: str = "id", metric: str = "l2") -> Schema:
        """Return the schema that a table of rows suggests.

        Parameters
        ----------
        table : rows
            As for :meth:`Collection.upsert`. Columns of number arrays of one length become
            vectors; fields with a null or an absent value become nullable.
        primary : str
            The field to be the primary key.
        metric : str
            The metric of all vectors.

        Raises
        ------
        SchemaError
            A column has no type, or there is no field ``primary``.

        Examples
        --------
        >>> Schema.infer([{"id": 1, "name": "Ada", "emb": [0.5, 1.5]}, {"id": 2, "emb": [1, 2]}])
        Schema(Field('id', 'int64', primary=True),
               Field('name', 'string', nullable=True),
               Vector('emb', 2, metric='l2'))
        """
        from .ingest import infer_fields  # noqa: PLC0415  (it imports this module)

        return cls(*infer_fields(table, primary=primary, metric=metric))

    @classmethod
    def from_pydantic(
        cls, model: Any, *, primary: str = "id", metric: str = "l2", **options: Any
    ) -> Schema:
        """Return the schema of the rows that a pydantic model (version 2) describes.

        ``X | None`` is nullable, a default is a default, bounds and patterns become checks, dicts
        and models json, and enums what they derive from. ``list[float]`` with ``min_length`` and
        ``max_length`` equal is a vector. ``Annotated[..., upvec.Field(...)]`` or
        ``Annotated[..., upvec.Vector(...)]``, with the name of the field, says it all.

        Parameters
        ----------
        model : type
        primary : str
            The field to be the primary key.
        metric : str
            The metric of vectors that are not annotated.
        **options
            ``unique``, ``order_by``, ``groups``, ``ttl`` and ``extra``, as for :class:`Schema`.

        Raises
        ------
        SchemaError
            Not such a model, or a field whose type no field can have.
        """
        from .models import model_fields  # noqa: PLC0415  (it imports this module)

        return cls(*model_fields(model, primary, metric), **options)

    def to_toml(self) -> str:
        """Return the schema as a TOML text, which :meth:`from_toml` reads.

        Raises
        ------
        SchemaError
            A default with a null in it, which TOML does not have.

        Examples
        --------
        >>> print(Schema(Field("id", "int64", primary=True), Vector("emb", 8)).to_toml(), end="")
        extra = "reject"
        <BLANKLINE>
        [fields.id]
        type = "int64"
        primary = true
        <BLANKLINE>
        [fields.emb]
        type = "vector"
        dim = 8
        metric = "l2"
        nullable = false
        M = 16
        ef_construction = 200
        """
        return toml.toml_text(toml.described(self._described()))

    @classmethod
    def from_toml(cls, source: str | os.PathLike[str]) -> Schema:
        r"""Read a schema from TOML; see ``upvec/toml.py`` for the form.

        Parameters
        ----------
        source : path, or str
            The path of a file; a text with a line break in it is the TOML itself.

        Raises
        ------
        SchemaError
            It is no TOML, or describes no schema.
        OSError
            The file cannot be read.
        ImportError
            Python 3.10 without ``pip install 'upvec[toml]'``.

        Examples
        --------
        >>> Schema.from_toml('[fields.id]\ntype = "int64"\nprimary = true')
        Schema(Field('id', 'int64', primary=True))
        """
        text = source
        if not isinstance(source, str) or "\n" not in source:
            with open(source, encoding="utf-8") as file:
                text = file.read()
        return cls.from_dict(toml.from_described(toml.read_toml(str(text))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._described() == other._described()

    def __hash__(self) -> int:
        return hash((self.names, self.primary.name))

    def __repr__(self) -> str:
        items: list[Any] = [self.vectors.get(n, self.fields.get(n)) for n in self.declared]
        parts = [repr(item) for item in items]
        if self.unique:
            parts.append(f"unique={list(self.unique.values())!r}")
        given = {"order_by": self.order_by, "groups": self.groups, "ttl": self.ttl}
        parts += [f"{name}={value!r}" for name, value in given.items() if value]
        if self.extra != "reject":
            parts.append(f"extra={self.extra!r}")
        return f"Schema({(',' + chr(10) + '       ').join(parts)})"
