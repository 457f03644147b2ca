"""Merge rules: a stored value and an incoming one → the value to store, for one field.

Each rule is a :class:`MergeRule`, given to a field (``Field(..., merge=sum_())``) or to a single
call (``Policy(merge={"logins": max_()})``). It is applied to all rows of a batch at once, in those
that match a stored row and mention the field; a new row stores what comes in.

===================  ==========================  ========================  =====  =====  =====
rule                 what is stored              an incoming null          idem.  assoc. comm.
===================  ==========================  ========================  =====  =====  =====
``replace``          what comes in               is stored                 yes    yes    no
``keep``             what was stored, even null  is ignored                yes    yes    no
``coalesce``         what comes in               is ignored                yes    yes    no
``fill``             the first value             is ignored                yes    yes    no
``min_ max_``        the smallest, the largest   is ignored                yes    yes    yes
``any_ all_``        or, and                     is ignored                yes    yes    yes
``union``            elements of both, once      is ignored                yes    yes    as a set
``remove_``          without those that come in  is ignored                yes    no     no
``sum_``             the sum                     is ignored                no     yes    yes
``append``           one list after the other    is ignored                no     yes    no
``concat``           one text after the other    is ignored                no     yes    no
``merge_map``        keys of both                drops the key             yes    yes    with ts
``mean``             the mean                    is ignored                no     weight weight
``ema``              a moving average            is ignored                no     no     no
``custom``           what a function says        is passed on              as declared
===================  ==========================  ========================  =====  =====  =====

*Idempotent* rules may be applied twice by a retry; *order-free* ones (associative and commutative)
apply to rows that come late. ``union`` and ``append`` with a limit, and ``mean`` under the metric
cosine, which forgets lengths, are not order-free. Sums and means of floats are associative up to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from . import combine
from .errors import SchemaError

if TYPE_CHECKING:
    from .combine import Merging

__all__ = [
    "MergeRule",
    "all_",
    "any_",
    "append",
    "coalesce",
    "concat",
    "custom",
    "ema",
    "fill",
    "keep",
    "max_",
    "mean",
    "merge_map",
    "min_",
    "remove_",
    "replace",
    "sum_",
    "union",
]

AnyArray: TypeAlias = npt.NDArray[Any]
Column: TypeAlias = "tuple[AnyArray, npt.NDArray[np.bool_]]"
Combine: TypeAlias = "Callable[[Merging], Column]"

_LISTS: Final = frozenset({"list<string>", "list<int64>", "list<float64>"})
_ORDERED: Final = frozenset({"int64", "float64", "timestamp", "string", "bytes", "bool"})
_ANY: Final = _LISTS | _ORDERED | {"json", "vector"}


@dataclass(frozen=True, eq=False)
class MergeRule:
    """What becomes of a field of a stored row when a row that matches it comes in.

    Made by the functions of this module, such as :func:`sum_`.

    Attributes
    ----------
    name : str
        The name of the function that made it.
    arguments : dict
        What it was made with.
    idempotent : bool
        Applied twice it does what it does once.
    associative, commutative : bool
        Incoming values may be combined first; their order does not matter.
    null : str
        What an incoming null does: ``"stored"``, ``"ignored"`` or ``"passed on"``.

    Examples
    --------
    >>> rule = union(limit=64)
    >>> rule, rule.idempotent, rule.order_free, union().order_free
    (union(limit=64), True, False, True)
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    idempotent: bool = True
    associative: bool = True
    commutative: bool = False
    null: str = "ignored"
    types: frozenset[str] = _ANY
    combine: Combine = combine.newest

    @property
    def order_free(self) -> bool:
        """Whether the order of incoming rows does not matter, so that late ones count."""
        return self.associative and self.commutative

    @property
    def weight(self) -> str | None:
        """The field that says how much an incoming value counts."""
        named: str | None = self.arguments.get("weight")
        return named

    def is_order_free_for(self, metric: str | None) -> bool:
        """Return the same for a field: ``metric`` of a vector, None of all others."""
        return self.order_free and not (self.name == "mean" and metric == "cosine")

    def check_type(self, name: str, kind: str) -> None:
        """Refuse a field whose values the rule cannot combine.

        Raises
        ------
        SchemaError
        """
        if kind not in self.types:
            known = " ".join(sorted(self.types))
            raise SchemaError(f"field {name!r} is {kind}; {self!r} combines {known}")

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a dict of JSON values; of a custom rule, the name of its function."""
        described = dict(self.arguments)
        if self.name == "custom":
            described["fn"] = function_name(described["fn"])
        return {"rule": self.name, **described}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MergeRule) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        given = {n: v for n, v in self.arguments.items() if v not in (None, False, "")}
        if self.name == "custom":
            given["fn"] = function_name(given["fn"])
        return f"{self.name}({', '.join(f'{n}={v!r}' for n, v in given.items())})"


def replace() -> MergeRule:
    """Store what comes in, null too: the rule of a field that names none."""
    return MergeRule("replace", null="stored", combine=combine.newest)


def keep() -> MergeRule:
    """Keep what is stored, even null: the value of the row that was first."""
    return MergeRule("keep", combine=combine.oldest)


def coalesce() -> MergeRule:
    """Store what comes in, unless it is null."""
    return MergeRule("coalesce", combine=combine.newest_known)


def fill() -> MergeRule:
    """Keep what is stored, unless it is null."""
    return MergeRule("fill", combine=combine.oldest_known)


def min_() -> MergeRule:
    """Store the smaller one. NaN is larger than all numbers."""
    return _commutative("min_", _ORDERED, combine.smallest)


def max_() -> MergeRule:
    """Store the larger one. NaN is smaller than all numbers."""
    return _commutative("max_", _ORDERED, combine.largest)


def any_() -> MergeRule:
    """Store whether either is true."""
    return _commutative("any_", frozenset({"bool"}), combine.either)


def all_() -> MergeRule:
    """Store whether both are true."""
    return _commutative("all_", frozenset({"bool"}), combine.both)


def sum_() -> MergeRule:
    """Add what comes in. A retry adds again: use ``op_id``.

    A sum beyond int64 is an :class:`InvalidRowError`.
    """
    numbers = frozenset({"int64", "float64"})
    return _commutative("sum_", numbers, combine.total, idempotent=False)


def union(limit: int | None = None) -> MergeRule:
    """Add the elements that the list does not have yet, in order, each once.

    Parameters
    ----------
    limit : int
        A list of so many elements takes no more.
    """
    _check_limit("union", limit)
    return MergeRule(
        "union", {"limit": limit}, commutative=limit is None, types=_LISTS, combine=combine.union
    )


def remove_() -> MergeRule:
    """Take the elements that come in out of the list.

    A new row, which has nothing to take them out of, gets the field's default, else null if the
    field is nullable, else an empty list.
    """
    return MergeRule("remove_", associative=False, types=_LISTS, combine=combine.without)


def append(limit: int | None = None) -> MergeRule:
    """Put what comes in at the end of the list. A retry appends again: use ``op_id``.

    Parameters
    ----------
    limit : int
        Only so many elements are kept: the last ones.
    """
    _check_limit("append", limit)
    return MergeRule(
        "append", {"limit": limit}, idempotent=False, types=_LISTS, combine=combine.append
    )


def concat(sep: str = "") -> MergeRule:
    """Put what comes in at the end of the text, behind ``sep``. A retry does so again."""
    if not isinstance(sep, str):
        raise SchemaError(f"concat(sep={sep!r}): wanted a text")
    texts = frozenset({"string"})
    return MergeRule("concat", {"sep": sep}, idempotent=False, types=texts, combine=combine.concat)


def merge_map(ts: str | None = None) -> MergeRule:
    """Put the keys of a JSON object over those of the stored one; null takes a key out.

    Parameters
    ----------
    ts : str
        Every value is an object with this member, a number or a text. Of two values of a key
        the one in which it is greater stays, of equal ones the one whose JSON is greater; so the
        order in which they come does not matter.
    """
    if ts is not None and not isinstance(ts, str):
        raise SchemaError(f"merge_map(ts={ts!r}): wanted the name of a member")
    maps = frozenset({"json"})
    how = combine.merge_maps if ts is None else combine.merge_timed_maps
    return MergeRule("merge_map", {"ts": ts}, commutative=ts is not None, types=maps, combine=how)


def mean(weight: str | None = None) -> MergeRule:
    """Store the mean of what is stored and what comes in.

    Parameters
    ----------
    weight : str
        A field of the rule :func:`sum_`: what is stored counts as often as it says, and what
        comes in as often as the incoming row says. Without it, both count the same.
    """
    if weight is not None and not isinstance(weight, str):
        raise SchemaError(f"mean(weight={weight!r}): wanted the name of a field")
    return MergeRule(
        "mean",
        {"weight": weight},
        idempotent=False,
        associative=weight is not None,
        commutative=weight is not None,
        types=frozenset({"float64", "vector"}),
        combine=combine.mean,
    )


def ema(alpha: float) -> MergeRule:
    """Store ``alpha`` times what comes in plus ``1 - alpha`` times what is stored.

    Parameters
    ----------
    alpha : float
        Above 0, at most 1.
    """
    given: object = alpha
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given <= 1:
        raise SchemaError(f"ema(alpha={alpha!r}): wanted a number above 0, at most 1")
    return MergeRule(
        "ema",
        {"alpha": float(alpha)},
        idempotent=False,
        associative=False,
        types=frozenset({"float64", "vector"}),
        combine=combine.moving_average,
    )


def custom(
    fn: Callable[[AnyArray, AnyArray], Any],
    *,
    idempotent: bool = False,
    associative: bool = False,
    commutative: bool = False,
) -> MergeRule:
    """Store what a function makes of both.

    Parameters
    ----------
    fn : callable
        ``fn(old, new)`` gets whole columns, as :class:`Rows` has them, of the rows that match and
        mention the field, and returns a column of as many values, which is validated as if it had
        come in. What it raises leaves the collection as it was. It must give the same for the same
        arguments. A file keeps its name alone: open the collection with the schema to use it.
    idempotent, associative, commutative : bool
        What is known of it.
    """
    if not callable(fn):
        raise SchemaError(f"custom(fn={fn!r}): wanted a function of two columns")
    flags = {"idempotent": idempotent, "associative": associative, "commutative": commutative}
    return MergeRule(
        "custom",
        {"fn": fn, **flags},
        idempotent=idempotent,
        associative=associative,
        commutative=commutative,
        null="passed on",
        combine=combine.by_function,
    )


def function_name(fn: Any) -> str:
    """Return what a file calls a function; of one that a file named, that name."""
    return fn if isinstance(fn, str) else f"{fn.__module__}.{fn.__qualname__}"


def rule_of(name: str, merge: Any) -> MergeRule:
    """Return the rule that a field asks for: by itself, or by one of its names.

    Raises
    ------
    SchemaError
        ``merge`` is no rule and no name of one.
    """
    if merge is None:
        return _REPLACE
    if isinstance(merge, MergeRule):
        return merge
    if isinstance(merge, str):
        made = _NAMED.get(merge) or _NAMED.get(merge.lower())
        if made is not None:
            return made()
    if callable(merge) and merge in _NAMED.values():  # Field(merge=sum_), without the call
        rule: MergeRule = merge()
        return rule
    known = ", ".join(_NAMED)
    raise SchemaError(f"field {name!r}: merge={merge!r}; wanted a merge rule or one of {known}")


def rule_from_dict(described: Mapping[str, Any]) -> MergeRule:
    """Return the rule that :meth:`MergeRule.to_dict` described.

    Raises
    ------
    SchemaError
        There is no such rule.
    """
    arguments = dict(described)
    name = arguments.pop("rule", None)
    if name == "custom":
        fn = arguments.pop("fn")
        return MergeRule(
            "custom",
            {"fn": fn, **arguments},
            **arguments,
            null="passed on",
            combine=combine.by_lost_function,
        )
    if name not in _MAKERS:
        raise SchemaError(f"unknown merge rule {name!r}; known: {', '.join(_MAKERS)}")
    return _MAKERS[name](**arguments)


def _commutative(
    name: str, types: frozenset[str], combined: Combine, *, idempotent: bool = True
) -> MergeRule:
    return MergeRule(name, idempotent=idempotent, commutative=True, types=types, combine=combined)


def _check_limit(name: str, limit: int | None) -> None:
    given: object = limit
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise SchemaError(f"{name}(limit={limit!r}): wanted a positive integer")


_REPLACE: Final = replace()
_MAKERS: Final[dict[str, Callable[..., MergeRule]]] = {
    made.__name__: made
    for made in (
        replace, keep, coalesce, fill, min_, max_, any_, all_, union, remove_, sum_, append,
        concat, merge_map, mean, ema,
    )
}  # fmt: skip
# Names without arguments; those of Paimon's functions and of Milvus' operators behind ours.
_NAMED: Final[dict[str, Callable[..., MergeRule]]] = {
    **{name: made for name, made in _MAKERS.items() if name != "ema"},
    "last_value": replace,
    "overwrite": replace,
    "first_value": keep,
    "ignore": keep,
    "last_non_null_value": coalesce,
    "first_non_null_value": fill,
    "min": min_,
    "max": max_,
    "bool_or": any_,
    "bool_and": all_,
    "sum": sum_,
    "increment": sum_,
    "collect": union,
    "array_append": append,
    "array_remove": remove_,
    "listagg": lambda: concat(","),
}
