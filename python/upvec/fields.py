"""What a record is made of: fields, vectors, and which of the fields are unique.

They are immutable, and are checked when they are made: what they accept is carried out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ExpressionError, InvalidRowError, SchemaError
from .expression import Expression, Predicate, bind, parse
from .merge import MergeRule, rule_from_dict, rule_of

__all__ = ["ABSENT", "DTYPES", "KEY_TYPES", "OBJECT", "Field", "Unique", "Vector"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

OBJECT: Final = np.dtype(object)
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "string": OBJECT,
    "int64": np.dtype(np.int64),
    "float64": np.dtype(np.float64),
    "bool": np.dtype(np.bool_),
    "timestamp": np.dtype("datetime64[us]"),
    "json": OBJECT,
    "bytes": OBJECT,
    "list<string>": OBJECT,
    "list<int64>": OBJECT,
    "list<float64>": OBJECT,
}
# Not float64: values that print alike differ, and NaN differs from itself.
KEY_TYPES: Final = frozenset({"string", "int64", "bool", "timestamp", "bytes"})
METRICS: Final = ("l2", "ip", "cosine")
MAX_DIM: Final = 65_536

# Words that expressions, hits and conditions on both versions of a row use for themselves.
_RESERVED = frozenset({"distance", "query", "old", "new"}) | frozenset(
    {"and", "or", "not", "in", "is", "null", "none", "true", "false", "between"}
)


class _Absent:
    """The type of :data:`ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""Stands where there is neither a value nor a null."""


class Field:
    """A named and typed column of a collection.

    Parameters
    ----------
    name : str
        An identifier; the words of expressions, ``distance``, ``query``, ``old`` and ``new``
        are taken.
    type : str
        ``string int64 float64 bool timestamp json bytes list<string> list<int64>
        list<float64>``. A timestamp is datetime64[us] in UTC.
    primary : bool
        The primary key: int64 or string, never null, never changed.
    nullable : bool
        Whether null may be stored.
    default : object
        The value of a row that leaves the field out when it is inserted; without one, such
        a row gets null if the field is nullable, and is refused otherwise.
    check : str, Expression or re.Pattern
        What every value must satisfy. A string that reads as an expression which names this
        field is that expression, as in ``"age >= 0"``; any other string is a regular
        expression that must match the whole of a string value. Null passes.
    merge : MergeRule or str
        What becomes of a stored value when another comes in: a rule such as :func:`sum_`, or
        its name; ``"replace"`` by default. See :mod:`upvec.merge`.
    index : bool
        Conditions on the field are answered from an index, which the first of them makes and
        every commit keeps up to date; answers do not depend on it. Of a json, nothing is.

    Raises
    ------
    SchemaError
        The name is taken, the type is unknown, or the arguments contradict each other.

    Examples
    --------
    >>> Field("email", "string", nullable=True, check=r"[^@]+@[^@]+")
    Field('email', 'string', nullable=True, check='[^@]+@[^@]+')
    """

    __slots__ = (
        "_pattern",
        "_predicate",
        "check",
        "default",
        "default_cell",
        "index",
        "merge",
        "name",
        "nullable",
        "primary",
        "type",
    )

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002  (the word that users expect)
        *,
        primary: bool = False,
        nullable: bool = False,
        default: Any = ABSENT,
        check: str | Expression | re.Pattern[str] | None = None,
        merge: MergeRule | str | None = None,
        index: bool = False,
    ) -> None:
        self.name = _checked_name(name)
        if type not in DTYPES:
            raise SchemaError(f"field {name!r}: unknown type {type!r}; types: {' '.join(DTYPES)}")
        self.type = type
        self.primary = bool(primary)
        self.nullable = bool(nullable)
        self.index = bool(index)
        if primary and type not in {"int64", "string"}:
            raise SchemaError(f"field {name!r}: a primary key is int64 or string, got {type}")
        if primary and (nullable or default is not ABSENT):
            raise SchemaError(f"field {name!r}: a primary key has no default and is never null")
        self.merge = rule_of(name, merge)
        self.merge.check_type(name, type)
        if primary and self.merge.name != "replace":
            raise SchemaError(f"field {name!r}: a primary key never changes, got {self.merge!r}")
        self.check = check
        self._pattern: re.Pattern[str] | None = None
        self._predicate: Predicate | None = None
        self._compile_check()
        # What may be null is null where it is absent: to say so is to say nothing.
        self.default = ABSENT if default is None and self.nullable else default
        self.default_cell = self._default_cell()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of a column of this type."""
        return DTYPES[self.type]

    @property
    def required(self) -> bool:
        """Whether a row cannot be inserted without the field."""
        return self.default is ABSENT and not self.nullable

    @property
    def is_pattern(self) -> bool:
        """Whether the check is a pattern, rather than a condition."""
        return self._pattern is not None

    def violations(self, values: AnyArray, null: BoolArray | None) -> BoolArray:
        """Return True where a value fails the check; bool (n,)."""
        if self._pattern is not None:
            matches = self._pattern.fullmatch
            bad = np.fromiter(
                (v is not None and matches(v) is None for v in values.tolist()),
                np.bool_,
                len(values),
            )
            return bad if null is None else bad & ~null
        if self._predicate is not None:
            return self._predicate.violated(_OneColumn(values, null))
        return np.zeros(len(values), dtype=np.bool_)

    def _compile_check(self) -> None:
        check = self.check
        if check is None:
            return
        if isinstance(check, str):
            try:
                expression: Expression | None = parse(check)
            except ExpressionError:
                expression = None
            if expression is not None and self.name in expression.fields():
                check = expression
            elif self.type == "string":
                check = _compiled_pattern(self.name, check)
            else:
                message = f"field {self.name!r}: check {check!r} is no condition on the field"
                raise SchemaError(message)
        if isinstance(check, re.Pattern):
            if self.type != "string" or not isinstance(check.pattern, str):
                raise SchemaError(f"field {self.name!r}: only a string can match a pattern")
            self._pattern = check
            return
        try:
            self._predicate = bind(check, {self.name: self.type})
        except ExpressionError as error:
            raise SchemaError(f"field {self.name!r}: check: {error}") from None

    def _default_cell(self) -> Any:
        """Return the default as a column of one row, so that it went through validation."""
        from .ingest import field_column  # noqa: PLC0415  (it imports this module)

        if self.default is ABSENT:
            return None
        if self.default is None and not self.nullable:
            raise SchemaError(f"field {self.name!r}: default null, but not nullable")
        try:
            return field_column(self, [self.default])
        except InvalidRowError as error:
            raise SchemaError(f"field {self.name!r}: default: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the field as a dict of JSON values."""
        from .ingest import json_cell  # noqa: PLC0415  (it imports this module)

        described: dict[str, Any] = {"name": self.name, "type": self.type}
        for flag in ("primary", "nullable", "index"):
            if getattr(self, flag):
                described[flag] = True
        if self.merge.name != "replace":
            described["merge"] = self.merge.to_dict()
        if self.default is not ABSENT:
            described["default"] = json_cell(self.type, self.default)
        if isinstance(self.check, re.Pattern):
            described["check"] = {"pattern": self.check.pattern, "flags": int(self.check.flags)}
        elif self.check is not None:
            described["check"] = str(self.check)
        return described

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Field:
        """Return the field that :meth:`to_dict` described."""
        from .ingest import cell_from_json  # noqa: PLC0415  (it imports this module)

        arguments = dict(described)
        check = arguments.get("check")
        if isinstance(check, Mapping):
            arguments["check"] = re.compile(check["pattern"], check["flags"])
        if "merge" in arguments:
            arguments["merge"] = rule_from_dict(arguments["merge"])
        if "default" in arguments:
            arguments["default"] = cell_from_json(arguments["type"], arguments["default"])
        return cls(**arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Field) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.name, self.type))

    def __repr__(self) -> str:
        parts = [repr(self.name), repr(self.type)]
        parts += [f"{flag}=True" for flag in ("primary", "nullable") if getattr(self, flag)]
        if self.default is not ABSENT:
            parts.append(f"default={self.default!r}")
        if self.check is not None:
            parts.append(f"check={self.check!r}")
        if self.merge.name != "replace":
            parts.append(f"merge={self.merge!r}")
        if self.index:
            parts.append("index=True")
        return f"Field({', '.join(parts)})"


class Vector:
    """A field of float32 vectors with an index over them.

    Parameters
    ----------
    name : str
        As for :class:`Field`.
    dim : int
        The dimension: 1 to 65,536.
    metric : str
        ``"l2"`` (squared), ``"ip"`` or ``"cosine"`` (both ``1 - dot``). Under cosine, vectors
        are stored with unit length, and a zero vector is an error.
    nullable : bool
        Whether a row may have none.
    source : str or sequence of str
        The fields that it is computed from: where one of them changes and no vector comes along,
        :meth:`Plan.stale` names the row.
    merge : MergeRule or str
        As for :class:`Field`: ``replace keep coalesce mean ema custom``.
    M, ef_construction : int
        Links per vector and breadth of the search for them, as for :class:`Index`.

    Raises
    ------
    SchemaError
        A name, dimension, metric or parameter that cannot be.

    Examples
    --------
    >>> Vector("emb", 768, metric="cosine")
    Vector('emb', 768, metric='cosine')
    """

    __slots__ = ("M", "dim", "ef_construction", "merge", "metric", "name", "nullable", "source")

    def __init__(
        self,
        name: str,
        dim: int,
        *,
        metric: str = "l2",
        nullable: bool = False,
        source: str | Iterable[str] | None = None,
        merge: MergeRule | str | None = None,
        M: int = 16,
        ef_construction: int = 200,
    ) -> None:
        self.name = _checked_name(name)
        self.dim = _checked_integer(name, "dim", dim, 1, MAX_DIM)
        if metric not in METRICS:
            raise SchemaError(f"vector {name!r}: metric {metric!r} is none of {', '.join(METRICS)}")
        self.metric = metric
        self.nullable = bool(nullable)
        self.M = _checked_integer(name, "M", M, 4, 256)
        self.ef_construction = _checked_integer(name, "ef_construction", ef_construction, 1, 65_536)
        self.source = (source,) if isinstance(source, str) else tuple(source or ())
        if not all(isinstance(field, str) for field in self.source):
            raise SchemaError(f"vector {name!r}: source={source!r}; wanted the names of fields")
        self.merge = rule_of(name, merge)
        self.check_rule(self.merge)

    def check_rule(self, rule: MergeRule) -> None:
        """Refuse a merge rule that is not for vectors.

        Raises
        ------
        SchemaError
        """
        if rule.name not in _VECTOR_RULES:
            known = ", ".join(_VECTOR_RULES)
            raise SchemaError(f"vector {self.name!r}: merge={rule!r}; wanted one of {known}")

    def to_dict(self) -> dict[str, Any]:
        """Return the vector field as a dict of JSON values."""
        described = {name: getattr(self, name) for name in _VECTOR_KEYS}
        if self.source:
            described["source"] = list(self.source)
        if self.merge.name != "replace":
            described["merge"] = self.merge.to_dict()
        return described

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Vector:
        """Return the vector field that :meth:`to_dict` described."""
        arguments = dict(described)
        if "merge" in arguments:
            arguments["merge"] = rule_from_dict(arguments["merge"])
        return cls(**arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vector) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.name, self.dim))

    def __repr__(self) -> str:
        parts = [repr(self.name), str(self.dim), f"metric={self.metric!r}"]
        if self.nullable:
            parts.append("nullable=True")
        if self.source:
            shown = self.source[0] if len(self.source) == 1 else self.source
            parts.append(f"source={shown!r}")
        if self.merge.name != "replace":
            parts.append(f"merge={self.merge!r}")
        parts += [f"M={self.M}"] if self.M != 16 else []
        if self.ef_construction != 200:
            parts.append(f"ef_construction={self.ef_construction}")
        return f"Vector({', '.join(parts)})"


_VECTOR_RULES = ("replace", "keep", "coalesce", "mean", "ema", "custom")
_VECTOR_KEYS = ("name", "dim", "metric", "nullable", "M", "ef_construction")


class Unique:
    """Fields of which no two rows may have the same values.

    A row with a null in one of the fields is equal to no other.

    Parameters
    ----------
    *fields : str
        One field, or several for a composite key.
    name : str
        What ``on=`` calls it; by default the fields joined by ``_``.

    Examples
    --------
    >>> Unique("tenant", "username", name="handle")
    Unique('tenant', 'username', name='handle')
    """

    __slots__ = ("fields", "name")

    def __init__(self, *fields: str, name: str | None = None) -> None:
        if not fields or not all(isinstance(field, str) for field in fields):
            raise SchemaError(f"Unique wants the names of fields, got {fields!r}")
        if len(set(fields)) != len(fields):
            raise SchemaError(f"Unique names a field twice: {fields!r}")
        self.fields = tuple(fields)
        self.name = "_".join(fields) if name is None else _checked_name(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the constraint as a dict of JSON values."""
        return {"fields": list(self.fields), "name": self.name}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Unique:
        """Return the constraint that :meth:`to_dict` described."""
        return cls(*described["fields"], name=described["name"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unique) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.fields, self.name))

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.fields))
        note = "" if self.name == "_".join(self.fields) else f", name={self.name!r}"
        return f"Unique({names}{note})"


class _OneColumn:
    """The source of a check: it sees nothing but its own field."""

    def __init__(self, values: AnyArray, null: BoolArray | None) -> None:
        self._cells = values, null

    def column(self, name: str) -> tuple[AnyArray, BoolArray | None]:  # noqa: ARG002
        return self._cells


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise SchemaError(f"a name is an identifier, got {name!r}")
    if name.lower() in _RESERVED or name.startswith("__"):
        raise SchemaError(f"the name {name!r} is reserved")
    return name


def _checked_integer(name: str, argument: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise SchemaError(f"vector {name!r}: {argument} is an integer, got {value!r}")
    if not low <= value <= high:
        raise SchemaError(f"vector {name!r}: {argument} is {low} to {high}, got {value}")
    return int(value)


def _compiled_pattern(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        message = f"field {name!r}: check {pattern!r} is neither a condition nor a pattern: {error}"
        raise SchemaError(message) from None
