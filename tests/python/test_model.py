"""A collection against a plain dict: random histories, with restarts and crashes."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import upvec
from upvec import Field, Policy, Schema, Unique, Vector

SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("email", "string", nullable=True),
    Field("tenant", "string", default="t"),
    Field("name", "string", nullable=True),
    Field("n", "int64", default=0),
    Field("tags", "list<string>", nullable=True),
    Vector("emb", 2, nullable=True),
    unique=[Unique("email"), Unique("tenant", "name", name="handle")],
)
DEFAULTS: dict[str, Any] = {"tenant": "t", "n": 0}
KEYS = {"id": ("id",), "email": ("email",), "handle": ("tenant", "name")}
FIELDS = ("id", "email", "tenant", "name", "n", "tags", "emb")

ids = st.sampled_from("abcdefgh")
rows_of_fields = st.fixed_dictionaries(
    {"id": ids},
    optional={
        "email": st.sampled_from(["e1", "e2", "e3", "e4", None]),
        "tenant": st.sampled_from(["t", "u"]),
        "name": st.sampled_from(["ada", "bob", "cy", None]),
        "n": st.integers(0, 3),
        "tags": st.one_of(st.none(), st.lists(st.sampled_from(["x", "y"]), max_size=2)),
        "emb": st.one_of(st.none(), st.lists(st.integers(-2, 2), min_size=2, max_size=2)),
    },
)
batches = st.lists(rows_of_fields, max_size=5)
policies = st.sampled_from(
    [
        "merge",
        "replace",
        "keep",
        "fill",
        Policy(mode="update_only"),
        Policy(only=["n", "email"]),
        Policy(absent="default", only=["n", "name"]),
    ]
)
duplicate_modes = st.sampled_from(["error", "first", "last"])


class Refused(Exception):
    """What the model expects the collection to raise."""

    def __init__(self, kind: type[Exception]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind


def key_of(row: dict[str, Any], fields: tuple[str, ...]) -> Any:
    key = tuple(row.get(name) for name in fields)
    return None if None in key else key


class Model:
    """Rows by primary key; every operation is the shortest code that says what it means."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.seq = 0

    def find(self, on: str, row: dict[str, Any]) -> str | None:
        wanted = key_of(row, KEYS[on])
        if wanted is None:
            return None
        return next((i for i, r in self.rows.items() if key_of(r, KEYS[on]) == wanted), None)

    def upsert(
        self,
        batch: list[dict[str, Any]],
        on: str,
        policy: Any,
        duplicates: str,
        strict: bool = False,
    ) -> list[str]:
        if any(name not in row for row in batch for name in KEYS[on]):
            raise Refused(upvec.InvalidRowError)
        status = ["skipped"] * len(batch)
        chosen = self._choose(batch, on, duplicates)
        mode = "insert_only" if policy == "keep" else getattr(policy, "mode", "upsert")
        matched = {i: self.find(on, batch[i]) for i in chosen}
        for i in list(chosen):
            known = matched[i] is not None
            if (mode == "insert_only" and known) or (mode == "update_only" and not known):
                chosen.remove(i)
                if strict:
                    status[i] = "conflict"
        if any(matched[i] is None and "id" not in batch[i] for i in chosen):
            raise Refused(upvec.InvalidRowError)
        rejected = {i for i in chosen if matched[i] not in (None, batch[i].get("id", matched[i]))}
        after = copy.deepcopy(self.rows)
        for i in chosen:
            if i in rejected:
                continue
            if matched[i] is None and batch[i]["id"] in after:
                rejected.add(i)  # a stored primary key, or one that is twice in the batch
                continue
            old = after.get(matched[i]) if matched[i] is not None else None
            new = self._merge(old, batch[i], policy)
            status[i] = "inserted" if old is None else "unchanged" if new == old else "updated"
            after[new["id"]] = new
        for fields in (KEYS["email"], KEYS["handle"]):
            keys = [key_of(row, fields) for row in after.values()]
            keys = [key for key in keys if key is not None]
            if len(set(keys)) < len(keys):
                raise Refused(upvec.ConflictError)
        if rejected or "conflict" in status:
            raise Refused(upvec.ConflictError)
        written = [i for i, s in enumerate(status) if s in {"inserted", "updated"}]
        if written:
            self.seq += 1
            self.rows = after
            for i in written:
                self.versions[matched[i] or batch[i]["id"]] = self.seq
        return status

    def _choose(self, batch: list[dict[str, Any]], on: str, duplicates: str) -> list[int]:
        groups: dict[Any, list[int]] = {}
        for i, row in enumerate(batch):
            key = key_of(row, KEYS[on])
            groups.setdefault(("row", i) if key is None else key, []).append(i)
        if duplicates == "error" and any(len(group) > 1 for group in groups.values()):
            raise Refused(upvec.DuplicateKeyError)
        return sorted(group[-1 if duplicates == "last" else 0] for group in groups.values())

    def _merge(
        self, old: dict[str, Any] | None, row: dict[str, Any], policy: Any
    ) -> dict[str, Any]:
        default = {name: DEFAULTS.get(name) for name in FIELDS}
        if old is None:
            return {**default, **row}
        only = getattr(policy, "only", None)
        resets = policy == "replace" or getattr(policy, "absent", "keep") == "default"
        new = dict(old)
        for name in FIELDS:
            if name == "id" or (only is not None and name not in only):
                continue
            if policy == "fill" and old[name] is not None:
                continue
            if name in row:
                new[name] = row[name]
            elif resets:
                new[name] = default[name]
        return new

    def delete(self, keys: list[str]) -> list[str]:
        status = []
        for key in keys:
            status.append("deleted" if self.rows.pop(key, None) is not None else "skipped")
            self.versions.pop(key, None)
        self.seq += "deleted" in status
        return status


def plain(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """A stored row with its vector as the model has it."""
    if row is None or row["emb"] is None:
        return row
    return {**row, "emb": row["emb"].tolist()}


class CollectionMachine(RuleBasedStateMachine):
    """Every rule does the same to both, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="upvec-model-")
        self.model = Model()
        self.held: list[tuple[Any, Any, dict[str, dict[str, Any]]]] = []

    @initialize(on_disk=st.booleans())
    def start(self, on_disk: bool) -> None:
        self.path = str(Path(self.root) / "collection") if on_disk else ":memory:"
        self.col = upvec.open(self.path, SCHEMA)

    def compare(self, expected: Any, call: Any) -> None:
        before = self.col.seq
        try:
            wanted = expected()
        except Refused as refused:
            try:
                result = call()
            except refused.kind:
                assert self.col.seq == before
                return
            raise AssertionError(f"wanted {refused}, got {result!r}") from refused
        result = call()
        assert [upvec.Outcome(s).name.lower() for s in result.status] == wanted
        assert result.seq == self.model.seq

    @rule(
        batch=batches,
        on=st.sampled_from(["id", "email", "handle"]),
        policy=policies,
        duplicates=duplicate_modes,
        without_id=st.booleans(),
    )
    def upsert(
        self, batch: list[Any], on: str, policy: Any, duplicates: str, without_id: bool
    ) -> None:
        if on != "id" and without_id:
            batch = [{k: v for k, v in row.items() if k != "id"} for row in batch]
        self.compare(
            lambda: self.model.upsert(batch, on, policy, duplicates),
            lambda: self.col.upsert(batch, on=on, policy=policy, duplicates=duplicates),
        )

    @rule(batch=batches)
    def insert(self, batch: list[Any]) -> None:
        policy = Policy("insert_only")
        self.compare(
            lambda: self.model.upsert(batch, "id", policy, "error", strict=True),
            lambda: self.col.insert(batch),
        )

    @rule(batch=batches)
    def update(self, batch: list[Any]) -> None:
        policy = Policy("update_only")
        self.compare(
            lambda: self.model.upsert(batch, "id", policy, "error", strict=True),
            lambda: self.col.update(batch),
        )

    @rule(batch=batches)
    def upsert_dropping_rejected_rows(self, batch: list[Any]) -> None:
        """What is not atomic writes exactly the rows that it does not report as left out."""
        result = self.col.upsert(batch, policy=Policy(atomic=False), duplicates="last")
        kept = [row for row, s in zip(batch, result.status, strict=True) if s <= 2]
        assert (result.status[result.status > 2] != upvec.Outcome.CONFLICT).all()
        self.model.upsert(kept, "id", "merge", "error")
        assert result.seq == self.model.seq

    @rule(keys=st.lists(ids, max_size=4))
    def delete(self, keys: list[str]) -> None:
        self.compare(lambda: self.model.delete(keys), lambda: self.col.delete(keys))

    @rule(n=st.integers(0, 3))
    def delete_where(self, n: int) -> None:
        gone = [key for key, row in self.model.rows.items() if row["n"] == n]
        result = self.col.delete(where=upvec.col("n") == n)
        assert sorted(result.key.tolist()) == sorted(gone)
        self.model.delete(gone)

    @rule(key=ids)
    def get(self, key: str) -> None:
        assert plain(self.col.get(key)[0]) == self.model.rows.get(key)
        assert (key in self.col) == (key in self.model.rows)

    @rule(email=st.sampled_from(["e1", "e2", None]), name=st.sampled_from(["ada", None]))
    def get_by_unique(self, email: Any, name: Any) -> None:
        for on, key in (("email", email), ("handle", ("t", name))):
            parts = dict(zip(KEYS[on], key if on == "handle" else (key,), strict=True))
            found = self.model.find(on, parts)
            wanted = None if found is None else self.model.rows[found]
            assert plain(self.col.get([key], on=on)[0]) == wanted

    @rule(n=st.integers(0, 3))
    def count_where(self, n: int) -> None:
        wanted = sum(1 for row in self.model.rows.values() if row["n"] >= n and row["name"])
        assert self.col.count(f"n >= {n} AND name IS NOT NULL") == wanted

    @rule(x=st.integers(-2, 2), y=st.integers(-2, 2))
    def search(self, x: int, y: int) -> None:
        vectors = [r["emb"] for r in self.model.rows.values() if r["emb"] is not None]
        wanted = sorted((x - v[0]) ** 2 + (y - v[1]) ** 2 for v in vectors)[:3]
        hits = self.col.search([x, y], k=3)
        assert hits["distance"].tolist() == wanted
        assert all(self.model.rows[key]["emb"] is not None for key in hits["id"])

    @rule()
    def hold_this_state(self) -> None:
        """A scan that was begun sees the rows of that moment, whatever is written later."""
        scan = self.col.scan(batch_rows=2)
        self.held.append((scan, self.col._published, copy.deepcopy(self.model.rows)))

    @precondition(lambda self: self.held)
    @rule()
    def finish_a_held_scan(self) -> None:
        scan, state, rows = self.held.pop(0)
        found = {row["id"]: plain(row) for batch in scan for row in batch.to_dicts()}
        assert found == rows
        for table, keys in (("id", "abcdefgh"), ("email", ["e1", "e2", "e3", "e4"])):
            rids = self.col._find(state, self.col._table(state, table), list(keys))
            for key, rid in zip(keys, rids.tolist(), strict=True):
                wanted = next((r for r in rows.values() if r[table] == key), None)
                assert (rid >= 0) == (wanted is not None)
                if wanted is not None:
                    stored = state.columns["id"].gather(np.array([rid]))[0][0]
                    assert stored == wanted["id"]

    @rule()
    def checkpoint(self) -> None:
        self.col.checkpoint()

    @precondition(lambda self: self.path != ":memory:")
    @rule(schema=st.sampled_from([None, SCHEMA]))
    def reopen(self, schema: Schema | None) -> None:
        digest = self.col.digest()
        self.forget()
        self.col.close()
        self.col = upvec.open(self.path, schema)
        assert self.col.digest() == digest

    @precondition(lambda self: self.path != ":memory:")
    @rule()
    def crash(self) -> None:
        """Nothing is closed in order; only the lock goes, as it does with a process."""
        digest = self.col.digest()
        self.forget()
        storage = self.col._storage
        storage._files.close(storage._lock)
        storage._lock = -1
        abandoned = self.col
        self.col = upvec.open(self.path)
        assert self.col.digest() == digest
        log, storage._log = storage._log, None
        log._close_file()
        abandoned.close()

    @precondition(lambda self: self.path != ":memory:")
    @rule()
    def read_beside_the_writer(self) -> None:
        with upvec.open(self.path, read_only=True) as reader:
            assert reader.digest() == self.col.digest()

    def forget(self) -> None:
        while self.held:
            self.finish_a_held_scan()

    @invariant()
    def same_rows(self) -> None:
        if not hasattr(self, "col"):
            return
        assert len(self.col) == len(self.model.rows)
        rows = self.col.get(sorted(self.model.rows))
        assert [plain(row) for row in rows.to_dicts()] == [
            row for _, row in sorted(self.model.rows.items())
        ]
        wanted = [version for _, version in sorted(self.model.versions.items())]
        assert rows.version.tolist() == wanted

    def teardown(self) -> None:
        if hasattr(self, "col"):
            self.forget()
            self.col.close()
        shutil.rmtree(self.root)


CollectionMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCollectionAgainstModel = CollectionMachine.TestCase
