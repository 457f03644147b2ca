"""What an upsert means, with dicts and loops: the model that the collection is tested against.

It is written from the documentation and shares nothing with the product. A row is a dict of all
fields; an incoming row is a dict of those that it mentions. Vectors are tuples of float32 values.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MISSING = object()
INT64_MAX = 2**63 - 1


class Refused(Exception):
    """The call raises an error of this name, and changes nothing."""

    def __init__(self, error: str, result: Result | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.result = result


@dataclass(frozen=True)
class Rule:
    """A merge rule by its name in the documentation."""

    name: str
    argument: Any = None

    @property
    def order_free(self) -> bool:
        if self.name in {"sum_", "min_", "max_", "any_", "all_"}:
            return True
        if self.name == "union":
            return self.argument is None
        return self.name in {"merge_map", "mean"} and self.argument is not None


@dataclass(frozen=True)
class Spec:
    """One field."""

    nullable: bool = False
    default: Any = MISSING
    rule: Rule = Rule("replace")
    vector: bool = False


@dataclass(frozen=True)
class Table:
    """A schema."""

    fields: Mapping[str, Spec]
    primary: str
    unique: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    order_by: str | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def all_keys(self) -> dict[str, tuple[str, ...]]:
        return {self.primary: (self.primary,), **self.unique}

    def clock(self, name: str) -> str | None:
        for clock, members in self.groups.items():
            if name == clock or name in members:
                return clock
        return None if name == self.primary else self.order_by


@dataclass
class Call:
    """The arguments of an upsert, beside its rows."""

    on: tuple[str, ...]
    mode: str = "upsert"
    absent: str = "keep"
    only: frozenset[str] | None = None
    rules: Mapping[str, Rule] = field(default_factory=dict)
    one_rule: Rule | None = None  # of the policies replace and fill, for all fields
    atomic: bool = True
    strict: bool = False
    duplicates: str = "error"
    where: Callable[[dict[str, Any], dict[str, Any]], bool | None] | None = None
    if_version: Mapping[Any, int] | None = None


@dataclass
class Result:
    """One outcome per row."""

    status: list[str]
    reason: list[str | None]
    changed: list[set[str]]
    version: list[int] = field(default_factory=list)


@dataclass
class Group:
    """Rows of a batch that mean one row: what is stored, and what becomes of it."""

    key: Any  # the primary key of the stored row, or None
    stored: dict[str, Any] | None
    now: dict[str, Any] | None
    applied: list[int] = field(default_factory=list)
    alive: bool = True


class Model:
    """Rows by primary key."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows: dict[Any, dict[str, Any]] = {}
        self.versions: dict[Any, int] = {}
        self.buried: dict[Any, Any] = {}
        self.seq = 0

    def copied(self) -> Model:
        other = Model(self.table)
        other.rows, other.versions = copy.deepcopy(self.rows), dict(self.versions)
        other.buried, other.seq = dict(self.buried), self.seq
        return other

    # --- Deleting -----------------------------------------------------------------------------

    def delete(self, keys: Iterable[Any]) -> list[str]:
        status = []
        gone = False
        for key in keys:
            status.append("deleted" if key in self.rows else "skipped")
            if key in self.rows:
                self._bury(key)
                gone = True
        self.seq += gone
        return status

    def _bury(self, key: Any) -> None:
        row = self.rows.pop(key)
        del self.versions[key]
        if self.table.order_by is not None and row[self.table.order_by] is not None:
            self.buried[key] = row[self.table.order_by]

    def sync(self, batch: list[dict[str, Any]], call: Call, inside: Any, most: float) -> Result:
        """Upsert, and delete the rows for which ``inside(row)`` and that nothing matches."""
        if not batch:
            raise Refused("ValueError")
        self._check_mentions(batch, call)
        matched = {key for row in batch for key in self._matches(row, call)[:1]}
        scope = [key for key, row in self.rows.items() if inside(row)]
        missing = [key for key in scope if key not in matched]
        if len(missing) > most * len(scope):
            raise Refused("ValueError")
        before = self.copied()
        try:
            for key in missing:
                self._bury(key)
            # Versions, and the number of the commit, as if all were one.
            result = self.upsert(batch, call)
        except BaseException:
            self.__dict__.update(before.__dict__)
            raise
        if missing and self.seq == before.seq:
            self.seq += 1
        return result

    # --- Upserting ----------------------------------------------------------------------------

    def upsert(self, batch: list[dict[str, Any]], call: Call) -> Result:
        n = len(batch)
        result = Result(["skipped"] * n, [None] * n, [set() for _ in range(n)])
        out = [False] * n

        def leave_out(row: int, status: str, reason: str) -> None:
            out[row] = True
            result.status[row], result.reason[row] = status, reason

        self._check_mentions(batch, call)
        matches = [self._matches(row, call) for row in batch]
        for i, found in enumerate(matches):
            if len(found) > 1:
                leave_out(i, "rejected", "ambiguous")
        groups = self._groups(batch, call, matches, out)
        self._choose(groups, call, leave_out)
        self._check_versions(batch, call, matches, leave_out, out)
        made: list[Group] = []
        for rows in groups:
            key = matches[rows[0]][0] if matches[rows[0]] else None
            stored = None if key is None else self.rows[key]
            made.append(Group(key, stored, copy.deepcopy(stored)))
        # Round by round, as errors of one round come before those of the next.
        for turn in range(max(map(len, groups), default=0)):
            for group, rows in zip(made, groups, strict=True):
                ordered = self._ordered(batch, rows)
                if turn < len(ordered) and not out[ordered[turn]]:
                    self._apply(batch, ordered[turn], group, call, result, leave_out)
        self._check_unique(made, call, leave_out)
        return self._finish(call, made, groups, matches, result)

    def _check_mentions(self, batch: list[dict[str, Any]], call: Call) -> None:
        for row in batch:
            if not any(all(f in row for f in self.table.all_keys()[on]) for on in call.on):
                raise Refused("InvalidRowError")

    def _key(self, row: Mapping[str, Any], on: str) -> Any:
        parts = tuple(row.get(name) for name in self.table.all_keys()[on])
        return None if None in parts else parts

    def _matches(self, row: dict[str, Any], call: Call) -> list[Any]:
        found: list[Any] = []
        for on in call.on:
            wanted = self._key(row, on)
            for key, stored in self.rows.items():
                if wanted is not None and self._key(stored, on) == wanted and key not in found:
                    found.append(key)
        return found

    def _groups(
        self, batch: list[dict[str, Any]], call: Call, matches: list[list[Any]], out: list[bool]
    ) -> list[list[int]]:
        groups: list[list[int]] = []
        for i in range(len(batch)):
            if out[i]:
                continue
            same = [g for g in groups if any(self._same(batch, j, i, call, matches) for j in g)]
            groups = [g for g in groups if g not in same]
            groups.append(sorted([i, *(j for g in same for j in g)]))
        return sorted(groups)

    def _same(
        self, batch: list[dict[str, Any]], i: int, j: int, call: Call, matches: list[list[Any]]
    ) -> bool:
        if matches[i] or matches[j]:
            return matches[i] == matches[j]
        keys = [(self._key(batch[i], on), self._key(batch[j], on)) for on in call.on]
        return any(a is not None and a == b for a, b in keys)

    def _choose(self, groups: list[list[int]], call: Call, leave_out: Any) -> None:
        for group in groups:
            if len(group) == 1 or call.duplicates == "fold":
                continue
            if call.duplicates == "error":
                raise Refused("DuplicateKeyError")
            chosen = group[0] if call.duplicates == "first" else group[-1]
            for row in group:
                if row != chosen:
                    leave_out(row, "skipped", "duplicate")

    def _check_versions(
        self,
        batch: list[dict[str, Any]],
        call: Call,
        matches: list[list[Any]],
        leave_out: Any,
        out: list[bool],
    ) -> None:
        for i, row in enumerate(batch):
            if call.if_version is None or out[i]:
                continue
            key = next((k for k in (self._key(row, on) for on in call.on) if k), None)
            name = key[0] if key is not None and len(key) == 1 else key
            if name not in call.if_version:
                continue
            have = self.versions[matches[i][0]] if matches[i] else 0
            if have != call.if_version[name]:
                leave_out(i, "conflict", "version")

    def _ordered(self, batch: list[dict[str, Any]], rows: list[int]) -> list[int]:
        clock = self.table.order_by
        if clock is None:
            return rows

        def rank(i: int) -> tuple[bool, Any, int]:
            order = batch[i].get(clock)
            return order is not None, order or 0, i

        return sorted(rows, key=rank)

    def _apply(
        self,
        batch: list[dict[str, Any]],
        i: int,
        group: Group,
        call: Call,
        result: Result,
        leave_out: Any,
    ) -> None:
        row, old = batch[i], group.now
        left = "conflict" if call.strict else "skipped"
        if old is not None and call.mode == "insert_only":
            leave_out(i, left, "exists")
            return
        if old is None and call.mode == "update_only":
            leave_out(i, left, "missing")
            return
        if old is not None and call.where is not None:
            seen = {name: row.get(name) for name in self.table.fields}
            if call.where(old, seen) is not True:
                leave_out(i, "skipped", "where")
                return
        primary = self.table.primary
        if old is None and primary not in row:
            raise Refused("InvalidRowError")
        if old is not None and row.get(primary, old[primary]) != old[primary]:
            leave_out(i, "rejected", "primary")
            return
        if old is None:
            if self._is_buried(row):
                leave_out(i, "stale", "deleted")
                return
            group.now = self._fresh(row, call)
            result.status[i] = "inserted"
            result.changed[i] = set(self.table.fields)
        else:
            late = [False]
            new = self._merged(old, row, call, late)
            result.changed[i] = {name for name in new if new[name] != old[name]}
            result.status[i] = (
                "updated" if result.changed[i] else "stale" if late[0] else "unchanged"
            )
            group.now = new
        group.applied.append(i)

    def _is_buried(self, row: dict[str, Any]) -> bool:
        then = self.buried.get(row[self.table.primary])
        order = row.get(self.table.order_by) if self.table.order_by else None
        return then is not None and (order is None or order < then)

    def _rule(self, name: str, call: Call) -> Rule:
        return call.one_rule or call.rules.get(name, self.table.fields[name].rule)

    def _fresh(self, row: dict[str, Any], call: Call) -> dict[str, Any]:
        fresh = {}
        for name, spec in self.table.fields.items():
            rule = self._rule(name, call)
            if name not in row or rule.name == "remove_":
                fresh[name] = self._default(name)
                if name not in row and spec.default is MISSING and not spec.nullable:
                    raise Refused("InvalidRowError")
                if name in row and spec.default is MISSING and not spec.nullable:
                    fresh[name] = []
            elif rule.name == "merge_map" and row[name] is not None:
                fresh[name] = _merged_map({}, row[name], rule.argument)
            else:
                fresh[name] = row[name]
        return copy.deepcopy(fresh)

    def _default(self, name: str) -> Any:
        default = self.table.fields[name].default
        return None if default is MISSING else copy.deepcopy(default)

    def _merged(
        self, old: dict[str, Any], row: dict[str, Any], call: Call, late: list[bool]
    ) -> dict[str, Any]:
        new = dict(old)
        timing = {}
        for clock in {self.table.order_by, *self.table.groups} - {None}:
            come, had = row.get(clock), old[clock]
            if come is None:
                is_late = had is not None if clock == self.table.order_by else "left out"
            else:
                is_late = had is not None and come < had
            timing[clock] = is_late
            late[0] = late[0] or is_late is True
        for name in self.table.fields:
            if name == self.table.primary or (call.only is not None and name not in call.only):
                continue
            rule = self._rule(name, call)
            when = timing.get(self.table.clock(name), False)
            if when == "left out" or (when and not rule.order_free):
                continue
            if name in row:
                new[name] = self._combined(name, rule, old, row)
            elif call.absent == "default" and not when:
                spec = self.table.fields[name]
                new[name] = self._default(name)
                if spec.default is MISSING and not spec.nullable and old[name] is not None:
                    raise Refused("InvalidRowError")
        return new

    def _combined(self, name: str, rule: Rule, old: dict[str, Any], row: dict[str, Any]) -> Any:
        had, come = old[name], copy.deepcopy(row[name])
        if rule.name == "replace":
            return come
        if rule.name == "keep":
            return had
        if rule.name == "fill":
            return come if had is None else had
        if come is None:
            return had
        if rule.name == "coalesce":
            return come
        if rule.name == "mean" and rule.argument is not None:
            weight = row.get(rule.argument)
            if weight is None or weight < 0:
                raise Refused("InvalidRowError")
            total = (old[rule.argument] or 0) + weight
            share = weight / total if total else 1.0
            return come if had is None else _mixed(had, come, share)
        if had is None and rule.name not in {"union", "append", "remove_", "merge_map"}:
            return come
        return _COMBINE[rule.name](had, come, rule.argument)

    # --- What must be unique --------------------------------------------------------------------

    def _check_unique(self, groups: list[Group], call: Call, leave_out: Any) -> None:
        tables = [on for on in list(self.table.all_keys()) if len(call.on) > 1 or on != call.on[0]]
        groups = [g for g in groups if g.applied]
        groups.sort(key=lambda group: group.applied[0])

        def claims(on: str) -> list[Group]:
            return [
                g
                for g in groups
                if g.alive
                and (
                    g.stored is None
                    or any(g.stored[f] != g.now[f] for f in self.table.all_keys()[on])
                )
            ]

        def reject(group: Group) -> None:
            group.alive = False
            for row in group.applied:
                leave_out(row, "rejected", "unique")

        while True:
            rejected = False
            for on in tables:
                leaving = [g.key for g in claims(on) if g.key is not None]
                for group in claims(on):
                    wanted = self._key(group.now, on)
                    for key, row in self.rows.items():
                        held = wanted is not None and self._key(row, on) == wanted
                        if held and key != group.key and key not in leaving:
                            reject(group)
                            rejected = True
                            break
            if rejected:
                continue
            for on in tables:
                taken = set()
                for group in claims(on):
                    wanted = self._key(group.now, on)
                    if wanted is not None and wanted in taken:
                        reject(group)
                        rejected = True
                    taken.add(wanted)
            if not rejected:
                return

    def _finish(
        self,
        call: Call,
        groups: list[Group],
        members: list[list[int]],
        matches: list[list[Any]],
        result: Result,
    ) -> Result:
        for group in groups:
            if not group.alive or group.now == group.stored:
                for row in group.applied:
                    result.changed[row] = set()
                    if group.alive and result.status[row] == "updated":
                        result.status[row] = "unchanged"
        for i, status in enumerate(result.status):
            if status in {"conflict", "rejected", "skipped"}:
                result.changed[i] = set()
        faults = {"conflict", "rejected"}
        if call.atomic and faults & set(result.status):
            result.changed = [set() for _ in result.status]  # nothing was written
            raise Refused("ConflictError", result)
        written = [g for g in groups if g.alive and g.applied and g.now != g.stored]
        self.seq += bool(written)
        result.version = [self.versions[m[0]] if m else 0 for m in matches]
        for group, rows in zip(groups, members, strict=True):
            if group not in written:
                continue
            key = group.now[self.table.primary]
            self.rows[key] = group.now
            self.versions[key] = self.seq
            self.buried.pop(key, None)
            for row in rows if call.duplicates == "fold" else group.applied:
                result.version[row] = self.seq
        return result


def _mixed(had: Any, come: Any, share: float) -> Any:
    if isinstance(had, tuple):
        return tuple(
            float(np.float32((1.0 - share) * a + share * b)) for a, b in zip(had, come, strict=True)
        )
    return (1.0 - share) * had + share * come


def _summed(had: Any, come: Any, argument: Any) -> Any:
    total = had + come
    if isinstance(total, int) and not -INT64_MAX - 1 <= total <= INT64_MAX:
        raise Refused("InvalidRowError")
    return total


def _united(had: Any, come: Any, limit: int | None) -> list[Any]:
    united = list(had or [])
    for element in come:
        if element not in united and (limit is None or len(united) < limit):
            united.append(element)
    return united


def _appended(had: Any, come: Any, limit: int | None) -> list[Any]:
    both = [*(had or []), *come]
    return both if limit is None else both[-limit:]


def _removed(had: Any, come: Any, argument: Any) -> Any:
    return None if had is None else [element for element in had if element not in come]


def _merged_map(had: Any, come: Any, member: str | None) -> dict[str, Any]:
    merged = dict(had or {})
    for key, value in come.items():
        if member is None or key not in merged or _rank(value, member) > _rank(merged[key], member):
            merged[key] = value
    return {key: value for key, value in merged.items() if value is not None}


def _rank(value: dict[str, Any], member: str) -> tuple[Any, str]:
    return value[member], json.dumps(value, sort_keys=True, separators=(",", ":"))


_COMBINE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "min_": lambda had, come, _: min(had, come),
    "max_": lambda had, come, _: max(had, come),
    "any_": lambda had, come, _: had or come,
    "all_": lambda had, come, _: had and come,
    "sum_": _summed,
    "union": _united,
    "append": _appended,
    "remove_": _removed,
    "concat": lambda had, come, sep: had + (sep or "") + come,
    "merge_map": _merged_map,
    "mean": lambda had, come, _: _mixed(had, come, 0.5),
    "ema": _mixed,
    "custom": lambda had, come, _: had * 2 + come,
}
