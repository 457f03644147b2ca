"""Upserts in all their options against a model of dicts and loops; see ``upsert_model.py``.

``UPVEC_LONG_STEPS`` is the number of steps of a long run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import upvec
from upsert_model import Call, Model, Refused, Result, Rule, Spec, Table
from upvec import Field, Policy, Schema, Unique, Vector, any_of

# --- Schemas, as the product and as the model have them ---------------------------------------

_RULES: dict[str, Callable[[Any], Any]] = {
    "replace": lambda _: upvec.replace(),
    "keep": lambda _: upvec.keep(),
    "coalesce": lambda _: upvec.coalesce(),
    "fill": lambda _: upvec.fill(),
    "min_": lambda _: upvec.min_(),
    "max_": lambda _: upvec.max_(),
    "any_": lambda _: upvec.any_(),
    "all_": lambda _: upvec.all_(),
    "sum_": lambda _: upvec.sum_(),
    "union": lambda limit: upvec.union(limit=limit),
    "remove_": lambda _: upvec.remove_(),
    "append": lambda limit: upvec.append(limit=limit),
    "concat": lambda sep: upvec.concat(sep or ""),
    "merge_map": lambda ts: upvec.merge_map(ts=ts),
    "mean": lambda weight: upvec.mean(weight=weight),
    "ema": upvec.ema,
    "custom": lambda _: upvec.custom(_double_and_add),
}


def _double_and_add(old: Any, new: Any) -> Any:
    return [
        n if o is None else o if n is None else o * 2 + n for o, n in zip(old, new, strict=True)
    ]


ints = st.integers(-3, 3)
small = st.one_of(st.none(), ints)
texts = st.sampled_from(["a", "b", "c"])
letters = st.lists(texts, max_size=3)
times = st.one_of(st.none(), st.integers(0, 6))
weights = st.sampled_from([0.0, 1.0, 2.0])
vectors = st.lists(ints, min_size=2, max_size=2).map(lambda v: tuple(map(float, v)))
maps = st.dictionaries(texts, st.one_of(st.none(), st.integers(0, 2)), max_size=2)
timed_maps = st.dictionaries(
    texts, st.fixed_dictionaries({"t": st.integers(0, 3), "v": st.integers(0, 2)}), max_size=2
)


class World:
    """A schema for both sides, and the values that its fields are given."""

    def __init__(
        self,
        fields: dict[str, tuple[str, Spec, Any]],
        unique: dict[str, tuple[str, ...]],
        **clocks: Any,
    ) -> None:
        self.values = {name: values for name, (_, _, values) in fields.items()}
        self.types = {name: kind for name, (kind, _, _) in fields.items()}
        specs = {name: spec for name, (_, spec, _) in fields.items()}
        self.table = Table(specs, "id", unique, **clocks)
        made: list[Any] = []
        for name, (kind, spec, _) in fields.items():
            how: dict[str, Any] = {"merge": make_rule(spec.rule), "nullable": spec.nullable}
            if kind == "vector":
                made.append(Vector(name, 2, **how))
                continue
            if spec.default is not upsert_missing:
                how["default"] = spec.default
            made.append(Field(name, kind, primary=name == "id", **how))
        keys = [Unique(*names, name=name) for name, names in unique.items()]
        self.schema = Schema(*made, unique=keys, **clocks)


upsert_missing = Spec().default


def make_rule(rule: Rule) -> Any:
    return _RULES[rule.name](rule.argument)


def _spec(name: str = "replace", argument: Any = None, **more: Any) -> Spec:
    return Spec(rule=Rule(name, argument), **{"nullable": True, **more})


_ID = ("string", Spec(), st.sampled_from("pqrstu"))

WORLDS = {
    "keys": World(
        {
            "id": _ID,
            "email": ("string", _spec(), st.sampled_from(["e1", "e2", "e3", None])),
            "tenant": ("string", Spec(default="t"), st.sampled_from(["t", "u"])),
            "user": ("string", _spec(), st.sampled_from(["x", "y", None])),
            "n": ("int64", Spec(default=0, rule=Rule("sum_")), ints),
            "must": ("int64", Spec(), ints),
            "emb": ("vector", _spec(), st.one_of(st.none(), vectors)),
        },
        {"email": ("email",), "handle": ("tenant", "user")},
    ),
    "clocks": World(
        {
            "id": _ID,
            "seen": ("int64", _spec(), times),
            "plain": ("string", _spec(), st.one_of(st.none(), texts)),
            "total": ("int64", _spec("sum_"), small),
            "most": ("float64", _spec("max_"), st.one_of(st.none(), ints.map(float))),
            "tags": ("list<string>", _spec("union"), st.one_of(st.none(), letters)),
            "few": ("list<string>", _spec("union", 2), st.one_of(st.none(), letters)),
            "map": ("json", _spec("merge_map", "t"), st.one_of(st.none(), timed_maps)),
            "weight": ("float64", Spec(default=0.0, rule=Rule("sum_")), weights),
            "score": ("float64", _spec("mean", "weight"), st.one_of(st.none(), ints.map(float))),
            "price_ts": ("int64", _spec(), times),
            "price": ("int64", _spec(), small),
            "bids": ("int64", _spec("sum_"), small),
            "mail": ("string", _spec(), st.sampled_from(["m1", "m2", None])),
        },
        {"mail": ("mail",)},
        order_by="seen",
        groups={"price_ts": ("price", "bids")},
    ),
    "rules": World(
        {
            "id": _ID,
            "keep": ("int64", _spec("keep"), small),
            "coalesce": ("int64", _spec("coalesce"), small),
            "fill": ("int64", _spec("fill"), small),
            "low": ("string", _spec("min_"), st.one_of(st.none(), texts)),
            "high": ("int64", _spec("max_"), small),
            "any": ("bool", _spec("any_"), st.one_of(st.none(), st.booleans())),
            "all": ("bool", _spec("all_"), st.one_of(st.none(), st.booleans())),
            "big": ("int64", _spec("sum_"), st.sampled_from([None, 1, 2**62, -(2**62)])),
            "less": ("list<string>", Spec(rule=Rule("remove_")), letters),
            "more": ("list<string>", _spec("append", 3), st.one_of(st.none(), letters)),
            "text": ("string", _spec("concat", ","), st.one_of(st.none(), texts)),
            "map": ("json", _spec("merge_map"), st.one_of(st.none(), maps)),
            "mean": ("float64", _spec("mean"), st.one_of(st.none(), ints.map(float))),
            "ema": ("vector", _spec("ema", 0.25), st.one_of(st.none(), vectors)),
            "mine": ("int64", _spec("custom"), st.one_of(st.none(), st.integers(-1, 1))),
            "emb": ("vector", _spec("mean"), st.one_of(st.none(), vectors)),
        },
        {},
    ),
}  # fmt: skip

CONDITIONS: dict[str, dict[str, Callable[[Any, Any], bool | None]]] = {
    "keys": {
        "new.n > old.n": lambda old, new: None if new["n"] is None else new["n"] > old["n"],
        "n >= 0 and old.tenant = 't'": lambda old, _: old["n"] >= 0 and old["tenant"] == "t",
        "new.email is null": lambda _, new: new["email"] is None,
    },
    "clocks": {"old.total is not null": lambda old, _: old["total"] is not None},
    "rules": {"keep <= 0": lambda old, _: None if old["keep"] is None else old["keep"] <= 0},
}  # fmt: skip

# Steps that were taken, by option: a run that never tries one of them proves nothing of it.
TRIED: Counter[str] = Counter()


class Against(RuleBasedStateMachine):
    """One world; subclasses say which, and whether the collection has files."""

    world: World
    conditions: dict[str, Callable[[Any, Any], bool | None]]

    @initialize(files=st.booleans())
    def begin(self, files: bool) -> None:
        self.folder = tempfile.mkdtemp() if files else None
        self.path = ":memory:" if self.folder is None else str(Path(self.folder) / "c")
        self.col = upvec.open(self.path, self.world.schema, durability="os")
        self.model = Model(self.world.table)
        self.values = dict(self.world.values)
        self.numbers = 0
        self.added = 0
        self.known: dict[int, Result] = {}

    def teardown(self) -> None:
        if hasattr(self, "col"):
            self.col.close()
            if self.folder is not None:
                shutil.rmtree(self.folder)

    # --- Drawing ------------------------------------------------------------------------------

    def draw_batch(self, data: Any, *, least: int = 0) -> list[dict[str, Any]]:
        values = self.values
        always = {name: values[name] for name in ("id",) if data.draw(st.integers(0, 9)) > 0}
        if "must" in values and data.draw(st.booleans()):
            always["must"] = values["must"]
        one = st.fixed_dictionaries(
            always, optional={n: v for n, v in values.items() if n not in always}
        )
        return data.draw(st.lists(one, min_size=least, max_size=4), label="batch")

    def draw_call(self, data: Any) -> tuple[Call, dict[str, Any]]:
        keys = list(self.model.table.all_keys())
        on = tuple(data.draw(st.lists(st.sampled_from(keys), min_size=1, unique=True), label="on"))
        call = Call(on)
        arguments: dict[str, Any] = {"on": on[0] if len(on) == 1 else any_of(*on)}
        TRIED["any_of"] += len(on) > 1
        policy = data.draw(
            st.sampled_from(["merge", "merge", "replace", "keep", "fill", "Policy", "Policy"]),
            label="policy",
        )
        arguments["policy"] = policy
        TRIED[f"policy {policy}"] += 1
        if policy == "keep":
            call.mode = "insert_only"
        elif policy == "replace":
            call.absent, call.one_rule = "default", Rule("replace")
        elif policy == "fill":
            call.one_rule = Rule("fill")
        elif policy == "Policy":
            arguments["policy"] = self.draw_policy(data, call)
        call.duplicates = data.draw(
            st.sampled_from(["error", "first", "last", "fold", "fold"]), label="duplicates"
        )
        arguments["duplicates"] = call.duplicates
        TRIED[f"duplicates {call.duplicates}"] += 1
        if data.draw(st.integers(0, 3)) == 0:
            text = data.draw(st.sampled_from(sorted(self.conditions)), label="where")
            arguments["where"], call.where = text, self.conditions[text]
            TRIED["where"] += 1
        return call, arguments

    def draw_policy(self, data: Any, call: Call) -> Policy:
        fields = list(self.values)
        call.mode = data.draw(st.sampled_from(["upsert", "upsert", "insert_only", "update_only"]))
        call.absent = data.draw(st.sampled_from(["keep", "default"]))
        call.atomic = data.draw(st.booleans())
        if data.draw(st.booleans()):
            call.only = frozenset(data.draw(st.lists(st.sampled_from(fields))))
        rules = {}
        if data.draw(st.booleans()):
            others = [name for name in fields if name not in {"id", "weight"}]
            name = data.draw(st.sampled_from(others))
            rules = {name: Rule(data.draw(st.sampled_from(["replace", "keep", "coalesce"])))}
            call.rules = rules
        TRIED["merge="] += len(rules)
        TRIED["only="] += call.only is not None
        TRIED["atomic=False"] += not call.atomic
        return Policy(
            call.mode,
            absent=call.absent,
            only=None if call.only is None else sorted(call.only),
            merge={n: make_rule(r) for n, r in rules.items()} or None,
            atomic=call.atomic,
        )

    # --- Comparing ----------------------------------------------------------------------------

    def compare(self, run: Callable[[], Any], expect: Callable[[Model], Result]) -> Any:
        """Run a call and its model; both must do the same, or refuse the same."""
        after = self.model.copied()
        try:
            expected = expect(after)
        except Refused as refused:
            error = getattr(upvec, refused.error, None) or getattr(
                __import__("builtins"), refused.error
            )
            with pytest.raises(error) as caught:
                run()
            if refused.result is not None:
                self.compare_results(caught.value.result, refused.result)
            TRIED[refused.error] += 1
            return None
        result = run()
        self.compare_results(result, expected)
        assert result.version.tolist() == expected.version
        self.model = after
        return result

    def compare_results(self, result: Any, expected: Result) -> None:
        got = [upvec.Outcome(status).name.lower() for status in result.status.tolist()]
        assert got == expected.status
        assert result.reason.tolist() == expected.reason
        for at, status in enumerate(got):
            assert set(result.changed[at]) == expected.changed[at]
            TRIED[status] += 1

    @invariant()
    def holds_the_same(self) -> None:
        if not hasattr(self, "col"):
            return
        assert rows_of(self.col) == self.model.rows
        versions = {}
        for rows in self.col.scan(fields=["id"]):
            versions |= dict(zip(rows["id"].tolist(), rows.version.tolist(), strict=True))
        assert versions == self.model.versions
        assert len(self.col) == len(self.model.rows)
        assert self.col.seq == self.model.seq

    # --- Steps --------------------------------------------------------------------------------

    @rule(data=st.data())
    def upsert(self, data: Any) -> None:
        batch = self.draw_batch(data)
        call, arguments = self.draw_call(data)
        self.compare(lambda: self.col.upsert(batch, **arguments), lambda m: m.upsert(batch, call))

    @rule(data=st.data())
    def upsert_if_version(self, data: Any) -> None:
        batch = [row for row in self.draw_batch(data, least=1) if "id" in row]
        if not batch:
            return
        call = Call(("id",), atomic=data.draw(st.booleans()), duplicates="fold")
        key = data.draw(st.sampled_from([row["id"] for row in batch]))
        known = [0, self.model.versions.get(key, 0), self.model.versions.get(key, 0)]
        versions = {key: data.draw(st.sampled_from(known))}
        call.if_version = versions
        TRIED["if_version"] += 1
        policy = Policy(atomic=call.atomic)
        self.compare(
            lambda: self.col.upsert(batch, policy=policy, if_version=versions, duplicates="fold"),
            lambda model: model.upsert(batch, call),
        )

    @rule(data=st.data(), insert=st.booleans())
    def insert_or_update(self, data: Any, insert: bool) -> None:
        batch = self.draw_batch(data)
        call = Call(("id",), mode="insert_only" if insert else "update_only", strict=True)
        run = self.col.insert if insert else self.col.update
        self.compare(lambda: run(batch), lambda model: model.upsert(batch, call))

    @rule(keys=st.lists(_ID[2], max_size=3, unique=True))
    def delete(self, keys: list[str]) -> None:
        result = self.col.delete(keys)
        expected = self.model.delete(keys)
        assert [upvec.Outcome(s).name.lower() for s in result.status.tolist()] == expected

    @rule(data=st.data(), again=st.booleans())
    def upsert_with_op_id(self, data: Any, again: bool) -> None:
        if again and self.known:
            number = data.draw(st.sampled_from(sorted(self.known)))
            result = self.col.upsert([{"id": "p"}], op_id=("w", number))
            self.compare_results(result, self.known[number])
            assert result.version.tolist() == self.known[number].version
            TRIED["repeated op_id"] += 1
            return
        batch = self.draw_batch(data)
        call = Call(("id",), duplicates="fold", atomic=False)
        policy = Policy(atomic=False)
        self.numbers += 1
        number = self.numbers

        def expect(model: Model) -> Result:
            seq = model.seq
            result = model.upsert(batch, call)
            model.seq = seq + 1  # the call is remembered by a commit, also if it changed nothing
            self.known[number] = result
            return result

        self.compare(
            lambda: self.col.upsert(batch, duplicates="fold", policy=policy, op_id=("w", number)),
            expect,
        )

    @rule(data=st.data(), most=st.sampled_from([0.0, 0.5, 1.0]))
    def sync(self, data: Any, most: float) -> None:
        batch = self.draw_batch(data)
        call = Call(("id",), duplicates="fold")
        scope, inside = data.draw(
            st.sampled_from(
                [(upvec.ALL, lambda _: True), ("id < 's'", lambda row: row["id"] < "s")]
            )
        )
        TRIED["sync"] += 1
        self.compare(
            lambda: self.col.sync(batch, scope=scope, max_delete=most, duplicates="fold"),
            lambda model: model.sync(batch, call, inside, most),
        )

    @rule(data=st.data())
    def plan_and_commit(self, data: Any) -> None:
        batch = self.draw_batch(data)
        call, arguments = self.draw_call(data)
        before, seq = rows_of(self.col), self.col.seq

        def run() -> Any:
            plan = self.col.upsert(batch, dry_run=True, **arguments)
            assert (rows_of(self.col), self.col.seq) == (before, seq)
            return plan.commit()

        TRIED["plan"] += 1
        self.compare(run, lambda model: model.upsert(batch, call))

    @rule(data=st.data(), commits=st.booleans())
    def transaction(self, data: Any, commits: bool) -> None:
        before = rows_of(self.col)
        inside = self.model.copied()
        marks: list[tuple[Any, Model]] = []
        try:
            with self.col.transaction() as tx:
                for _ in range(data.draw(st.integers(1, 7))):
                    self.one_of_a_transaction(data, tx, inside, marks)
                    assert rows_of(tx) == inside.rows
                    assert tx.count() == len(inside.rows)
                    assert rows_of(self.col) == before
                if not commits:
                    raise _Abandoned  # noqa: TRY301
        except _Abandoned:
            pass
        else:
            self.settle(inside)
        TRIED["transaction"] += 1

    def one_of_a_transaction(
        self, data: Any, tx: Any, inside: Model, marks: list[tuple[Any, Model]]
    ) -> None:
        step = data.draw(
            st.sampled_from(["upsert", "upsert", "again", "delete", "savepoint", "rollback"])
        )
        if step in {"upsert", "again"}:
            batch = self.draw_batch(data)
            call, arguments = self.draw_call(data)
            if step == "again":
                self.and_undo(tx, batch, arguments)
            after = inside.copied()
            try:
                expected = after.upsert(batch, call)
            except Refused as refused:
                with pytest.raises(getattr(upvec, refused.error)):
                    tx.upsert(batch, **arguments)
            else:
                self.compare_results(tx.upsert(batch, **arguments), expected)
                inside.__dict__.update(after.__dict__)
        elif step == "delete":
            keys = data.draw(st.lists(_ID[2], max_size=2, unique=True))
            tx.delete(keys)
            inside.delete(keys)
        elif step == "savepoint":
            marks.append((tx.savepoint(), inside.copied()))
        elif marks:
            TRIED["rollback"] += 1
            point, kept = marks[-1]
            tx.rollback(point)
            inside.__dict__.update(kept.copied().__dict__)

    def and_undo(self, tx: Any, batch: list[dict[str, Any]], arguments: dict[str, Any]) -> None:
        """Upsert in a block that is undone: as if it had never been."""
        try:
            with tx.savepoint():
                tx.upsert(batch, **arguments)
                raise _Abandoned  # noqa: TRY301
        except (_Abandoned, upvec.UpvecError):
            TRIED["undone"] += 1

    def settle(self, inside: Model) -> None:
        """Take over what a transaction left; all that it touched has the one new version."""
        versions = {}
        for rows in self.col.scan(fields=["id"]):
            versions |= dict(zip(rows["id"].tolist(), rows.version.tolist(), strict=True))
        assert self.col.seq - self.model.seq in {0, 1}
        assert set(versions) == set(inside.rows)
        for key, version in versions.items():
            if self.model.rows.get(key) != inside.rows[key]:
                assert version == self.model.seq + 1
            else:
                assert version in {self.model.versions[key], self.model.seq + 1}
        inside.versions, inside.seq = versions, self.col.seq
        if self.world.table.order_by is not None:
            self.forget(inside)
        self.model = inside

    def forget(self, inside: Model) -> None:
        """Let the model remember what the collection does of rows that came and went inside."""
        inside.buried = {
            key: order
            for key, order in inside.buried.items()
            if key in self.model.rows or key in self.model.buried
        }
        for key in list(inside.buried):
            if key in self.model.rows:
                order = self.model.rows[key][self.world.table.order_by]
                inside.buried[key] = order
            else:
                inside.buried[key] = self.model.buried[key]
        inside.buried = {key: order for key, order in inside.buried.items() if order is not None}

    @rule(data=st.data())
    def alter(self, data: Any) -> None:
        """Change the schema, but for what the world began with, which conditions speak of."""
        for _ in range(data.draw(st.integers(1, 5), label="changes")):
            self.alter_once(data)
            assert rows_of(self.col) == self.model.rows

    def alter_once(self, data: Any) -> None:
        steps = ["add", "add", "drop", "rename", "widen", "unique", "nonsense"]
        step = data.draw(st.sampled_from(steps), label="alter")
        ours = [name for name in self.values if name.startswith("x_")]
        if step not in {"add", "nonsense"} and not ours:
            return
        name = data.draw(st.sampled_from(ours)) if ours else ""
        change = {
            "add": self.add_field, "drop": self.drop_field, "rename": self.rename_field,
            "widen": self.widen_field, "unique": self.add_unique,
            "nonsense": self.alter_nonsense,
        }[step]  # fmt: skip
        TRIED[f"alter {step}"] += bool(change(data, name))

    def altered(self, fields: dict[str, Spec], unique: dict[str, tuple[str, ...]]) -> bool:
        """Let the model take over another schema; its rows have been changed."""
        self.model.table = replace(self.model.table, fields=fields, unique=unique)
        self.model.seq += 1
        return True

    def add_field(self, data: Any, _: str) -> bool:
        self.added += 1
        name = f"x_{self.added}"
        fields = dict(self.model.table.fields)
        kind = data.draw(st.sampled_from(["null", "default", "id", "same"]), label="kind")
        if kind in {"id", "same"}:
            field, spec, values = Field(name, "string"), Spec(), texts
            how = "id + '!'" if kind == "id" else "'same'"
            self.col.alter(add=[field], backfill={name: how})
            filled = {key: f"{key}!" if kind == "id" else kind for key in self.model.rows}
        else:
            default = 5 if kind == "default" else None
            spec = _spec("sum_", default=default)
            field = Field(name, "int64", nullable=True, default=default, merge="sum_")
            values = small
            self.col.alter(add=[field])
            filled = dict.fromkeys(self.model.rows, default)
        for key, row in self.model.rows.items():
            row[name] = filled[key]
        self.values[name] = values
        return self.altered({**fields, name: spec}, dict(self.model.table.unique))

    def drop_field(self, _: Any, name: str) -> bool:
        self.col.alter(drop=name, drop_unique=[name] if name in self.model.table.unique else [])
        for row in self.model.rows.values():
            del row[name]
        del self.values[name]
        kept = {n: spec for n, spec in self.model.table.fields.items() if n != name}
        return self.altered(kept, {n: f for n, f in self.model.table.unique.items() if n != name})

    def rename_field(self, _: Any, name: str) -> bool:
        self.added += 1
        new = f"x_{self.added}"
        self.col.alter(rename={name: new})
        for row in self.model.rows.values():
            row[new] = row.pop(name)
        self.values[new] = self.values.pop(name)
        fields = {new if n == name else n: s for n, s in self.model.table.fields.items()}
        keys = self.model.table.unique.items()
        return self.altered(
            fields, {new if n == name else n: (new,) if n == name else f for n, f in keys}
        )

    def widen_field(self, _: Any, name: str) -> bool:
        if self.col.schema.fields[name].type == "string":
            self.col.alter(widen={name: "nullable"})
            fields = dict(self.model.table.fields)
            fields[name] = replace(fields[name], nullable=True)
            self.values[name] = st.one_of(st.none(), texts)
            return self.altered(fields, dict(self.model.table.unique))
        if self.col.schema.fields[name].type != "int64" or name in self.model.table.unique:
            return False
        self.col.alter(widen={name: "float64"})
        return self.altered(dict(self.model.table.fields), dict(self.model.table.unique))

    def add_unique(self, _: Any, name: str) -> bool:
        if name in self.model.table.unique or self.col.schema.fields[name].type == "float64":
            return False
        held = [row[name] for row in self.model.rows.values() if row[name] is not None]
        if len(set(held)) < len(held):
            with pytest.raises(upvec.ViolationError) as caught:
                self.col.alter(add_unique=[Unique(name)])
            told = {value: sorted(keys) for value, keys in caught.value.violations}
            assert told == {
                value: sorted(k for k, row in self.model.rows.items() if row[name] == value)
                for value in held
                if held.count(value) > 1
            }
            TRIED["ViolationError"] += 1
            return False
        self.col.alter(add_unique=[Unique(name)])
        unique = {**self.model.table.unique, name: (name,)}
        return self.altered(dict(self.model.table.fields), unique)

    @precondition(lambda self: len(self.model.rows) > 1)
    @rule()
    def alter_against_the_rows(self) -> None:
        with pytest.raises(upvec.ViolationError) as caught:
            self.col.alter(
                add=[Field("x", "string")], backfill={"x": "'same'"}, add_unique=[Unique("x")]
            )
        assert [(v, sorted(k)) for v, k in caught.value.violations] == [
            ("same", sorted(self.model.rows))
        ]
        TRIED["alter violate"] += 1

    def alter_nonsense(self, data: Any, _: str) -> bool:
        changes: Any = data.draw(
            st.sampled_from(
                [
                    {"drop": ["id"]},
                    {"drop": ["nope"]},
                    {"rename": {"nope": "x"}},
                    {"widen": {"id": "json"}},
                    {"add": [Field("id", "int64", default=0)]},
                    {"add_unique": [Unique("nope")]},
                ]
            )
        )
        with pytest.raises(upvec.SchemaError):
            self.col.alter(**changes)
        return True

    @precondition(lambda self: self.folder is not None)
    @rule(checkpoint=st.booleans())
    def reopen(self, checkpoint: bool) -> None:
        if checkpoint:
            self.col.checkpoint()
        schema = self.col.schema  # no file holds the functions of custom rules
        self.col.close()
        self.col = upvec.open(self.path, schema, durability="os")
        assert self.col.schema == schema
        TRIED["reopen"] += 1


class _Abandoned(Exception):
    pass


def rows_of(reader: Any) -> dict[str, dict[str, Any]]:
    """Return all rows by primary key, with vectors as tuples."""
    found = {}
    for rows in reader.scan():
        for row in rows.to_dicts():
            found[row["id"]] = {
                name: tuple(value.tolist()) if isinstance(value, np.ndarray) else value
                for name, value in row.items()
            }
    return found


STEPS = int(os.environ.get("UPVEC_LONG_STEPS", "0"))


def _settings() -> settings:
    steps = 30
    examples = max(50, STEPS // steps // len(WORLDS))
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def _against(name: str) -> Any:
    machine = type(
        f"Against{name.title()}",
        (Against,),
        {"world": WORLDS[name], "conditions": CONDITIONS[name]},
    )
    case = machine.TestCase
    case.settings = _settings()
    return case


TestKeys = _against("keys")
TestClocks = _against("clocks")
TestRules = _against("rules")


def test_every_option_was_tried() -> None:
    wanted = {
        "any_of", "policy merge", "policy replace", "policy keep", "policy fill", "policy Policy",
        "duplicates error", "duplicates first", "duplicates last", "duplicates fold", "where",
        "merge=", "only=", "atomic=False", "if_version", "repeated op_id", "sync", "plan",
        "transaction", "rollback", "undone", "reopen",
        "alter add", "alter drop", "alter rename", "alter widen", "alter unique", "alter violate",
        "alter nonsense",
        "inserted", "updated", "unchanged", "skipped", "stale", "conflict", "rejected",
        "InvalidRowError", "DuplicateKeyError", "ConflictError", "ValueError",
    }  # fmt: skip
    if not TRIED:
        pytest.skip("the machines did not run in this process")
    assert wanted <= {name for name, times in TRIED.items() if times}
