"""The running example: user profiles from two sources, and a process killed half-way.

Profiles are made from the sample of real text embeddings: a synset's first word becomes a
username, its definition the profile's text. Run it with ``upvec demo``.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .collection import Collection
from .collection import open as open_collection
from .errors import ConflictError, CorruptionError, DuplicateKeyError, InvalidRowError
from .fields import Field, Unique, Vector
from .policy import Policy
from .result import Outcome, UpsertResult
from .sample import Sample, load_sample
from .schema import Schema

__all__ = ["SCHEMA", "check_batches", "profiles", "run", "stream_batches"]

DIM = 384
SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("username", "string"),
    Field("email", "string", nullable=True),
    Field("bio", "string", default=""),
    Field("preferences", "json", nullable=True),
    Field("logins", "int64", default=0),
    Field("batch", "int64", nullable=True),
    Field("batch_size", "int64", nullable=True),
    Vector("emb", DIM, metric="cosine"),
    unique=[Unique("username"), Unique("email")],
)

Row = dict[str, Any]
FloatArray = npt.NDArray[np.float32]


def profiles(sample: Sample, vectors: FloatArray, text: str, rows: Iterable[int]) -> list[Row]:
    """User profiles from records of the sample.

    Parameters
    ----------
    sample : Sample
    vectors : ndarray (2000, 384) of float32
        Which of the sample's embeddings to use.
    text : str
        The record's field that becomes ``bio``.
    rows : iterable of int
        Records to use.
    """
    names = usernames(sample)
    return [
        {
            "id": f"u{i:04}",
            "username": names[i],
            "email": f"{names[i]}@example.org",
            "bio": sample.records[i][text],
            "preferences": {"language": "en", "digest": i % 2 == 0},
            "emb": vectors[i],
        }
        for i in rows
    ]


def usernames(sample: Sample) -> list[str]:
    """A name of its own for each record: its first lemma, numbered where it occurs again."""
    seen: Counter[str] = Counter()
    names = []
    for record in sample.records:
        name = re.sub(r"[^a-z0-9]+", "_", record["lemmas"][0].lower())
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def run(kills: int = 3, folder: Path | None = None) -> None:
    """Tell the whole story on standard output.

    Parameters
    ----------
    kills : int
        How often the writing process is killed.
    folder : Path, optional
        Where the collection goes; a temporary directory if absent, removed afterwards.
    """
    began_s = time.perf_counter()
    sample = load_sample()
    if folder is not None:
        _tell(sample, folder / "profiles", kills)
    else:
        with tempfile.TemporaryDirectory(prefix="upvec-demo-") as temporary:
            _tell(sample, Path(temporary) / "profiles", kills)
    print(f"\nDone in {time.perf_counter() - began_s:.1f} s.")


def _tell(sample: Sample, path: Path, kills: int) -> None:
    _heading("1. A schema: what makes a record unique, what may be missing")
    print(SCHEMA)
    with open_collection(path, SCHEMA) as col:
        _load_source_a(col, sample)
        _upsert_source_b(col, sample)
        _conflicts(col, sample)
        _search(col, sample)
        col.checkpoint()
    _kill(path, sample, kills)


def _load_source_a(col: Collection, sample: Sample) -> None:
    _heading("2. Source A: 1,500 people, one batch")
    rows = profiles(sample, sample.v1, "definition", range(1500))
    for row in rows[:40]:
        row["email"] = None  # null is allowed, and no two nulls are in each other's way
    result = _timed(lambda: col.upsert(rows), len(rows))
    print(f"   {_counts(result)}")


def _upsert_source_b(col: Collection, sample: Sample) -> None:
    _heading("3. Source B: the same people and 300 more, matched by username, embedded anew")
    rows = profiles(sample, sample.v2, "gloss", range(1800))
    for row in rows[:1500]:
        del row["id"], row["preferences"]  # B does not know these: absent is not null
    for row in rows[:40]:
        row["email"] = f"{row['username']}@mail.example"  # B knows the address that A did not
    known = rows[:1500]
    moved = _timed(lambda: col.upsert(known, on="username"), len(known))
    print(f"   {_counts(moved)}   (preferences, which B does not send, are retained)")
    result = _timed(lambda: col.upsert(rows[1500:]), 300)
    print(f"   {_counts(result)}")
    result = _timed(lambda: col.upsert(known, on="username"), len(known))
    print(f"   {_counts(result)}   (the same batch once more: nothing is written)")
    report = [
        _outcome_row("e-mail was null", col, rows[0]["username"], moved, 0),
        _outcome_row("e-mail was the same", col, rows[700]["username"], moved, 700),
    ]
    _table(("case", "outcome", "e-mail stored", "preferences stored"), report)


def _conflicts(col: Collection, sample: Sample) -> None:
    _heading("4. Conflicts of each kind, and what the rules make of them")
    names = usernames(sample)
    first, second = names[100], names[200]
    new = profiles(sample, sample.v1, "definition", [1900])[0]
    table: list[tuple[str, ...]] = []

    def attempt(case: str, rows: list[Row], **options: Any) -> None:
        before = col.digest()
        try:
            result = col.upsert(rows, **options)
            outcome = _counts(result)
            detail = next((str(reason) for reason in result.reason if reason), "")
        except (ConflictError, DuplicateKeyError, InvalidRowError, ValueError) as error:
            outcome = type(error).__name__
            detail = str(error)
            if col.digest() != before:
                raise AssertionError(f"{case}: refused, and yet something changed") from error
        table.append((case, outcome, _short(detail, 72)))

    attempt("policy merge: new bio", [{"username": first, "bio": "new"}], on="username")
    attempt(
        "policy keep: existing rows stay",
        [{"username": first, "bio": "newer"}],
        on="username",
        policy="keep",
    )
    attempt(
        "policy fill: only what is null",
        [{"username": first, "bio": "newer", "logins": 7, "batch": 1}],
        on="username",
        policy="fill",
    )
    attempt(
        "only logins may change",
        [{"username": first, "bio": "newest", "logins": 8}],
        on="username",
        policy=Policy(only=["logins"]),
    )
    swap = [
        {"username": first, "email": f"{second}@example.org"},
        {"username": second, "email": f"{first}@example.org"},
    ]
    attempt("two people swap their addresses", swap, on="username")
    attempt("address of somebody else", [{**new, "email": f"{first}@example.org"}])
    attempt(
        "… that row dropped, the others stored",
        [{**new, "email": f"{first}@example.org"}, {"username": second, "logins": 1}],
        on="username",
        policy=Policy(atomic=False),
    )
    attempt("one person twice in a batch", [new, {**new, "bio": "again"}])
    attempt("… and the last one counts", [new, {**new, "bio": "again"}], duplicates="last")
    attempt("a vector of 3 numbers", [{**new, "emb": [1.0, 2.0, 3.0]}])
    attempt("NaN in a vector", [{**new, "emb": np.full(DIM, np.nan)}])
    attempt("null username", [{**new, "username": None}])
    attempt("a field nobody declared", [{**new, "phone": "555"}])
    _table(("case", "outcome", "what upvec says"), table)
    print("   Every refused batch changed nothing: the digest of the collection proves it.")


def _search(col: Collection, sample: Sample) -> None:
    _heading("5. Search: whose profile is like this one?")
    i = 1200
    print(f"   query: {sample.records[i]['gloss']!r}")
    hits = col.search(sample.v2[i], k=5, fields=["username", "bio"])
    _table(
        ("distance", "username", "bio"),
        [
            (f"{row['distance']:.3f}", row["username"], _short(row["bio"], 76))
            for row in hits.to_dicts()
            if row is not None
        ],
    )


def _kill(path: Path, sample: Sample, kills: int) -> None:
    _heading(f"6. A stream of upserts, killed {kills} times with SIGKILL")
    rng = np.random.default_rng(7)
    acknowledged = broken = 0
    table: list[tuple[str, ...]] = []
    for kill in range(kills):
        with subprocess.Popen(
            [sys.executable, "-m", "upvec.demo", str(path), str(acknowledged + 1)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None  # noqa: S101  (asked for just above)
            writer.stdout.readline()
            time.sleep(float(rng.uniform(0.1, 0.5)))
            writer.send_signal(signal.SIGKILL)
            acks = [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        began_s = time.perf_counter()
        with open_collection(path) as col:
            opened_s = time.perf_counter() - began_s
            last = max(acks, default=acknowledged)
            survey = check_batches(col, sample, last)
        in_flight = max(0, survey.newest - last)
        cells = (kill + 1, len(acks), survey.lost, in_flight, survey.partial)
        table.append((*map(str, cells), f"{opened_s * 1e3:.0f} ms"))
        broken += survey.lost + survey.partial + max(0, in_flight - 1)
        acknowledged = survey.newest
    _table(("kill", "acknowledged", "lost", "in flight, kept", "partial", "reopened in"), table)
    if broken:
        raise CorruptionError(f"{broken} batches lost, partial or never sent; see the table")
    print("   A batch in flight at the kill is there as a whole or not at all.")


BATCH_ROWS = 20
STREAM_ROWS = range(1500)


def batch_rows(sample: Sample, batch: int) -> list[Row]:
    """Batch number `batch` of the stream: 20 people get new vectors and the batch's number."""
    start = batch * BATCH_ROWS % len(STREAM_ROWS)
    vectors = sample.v1 if batch % 2 else sample.v2
    return [
        {"id": f"u{i:04}", "batch": batch, "batch_size": BATCH_ROWS, "emb": vectors[i]}
        for i in (STREAM_ROWS[(start + j) % len(STREAM_ROWS)] for j in range(BATCH_ROWS))
    ]


def stream_batches(path: str, first: int) -> None:
    """Upsert batches until killed; print each batch's number once it is acknowledged."""
    sample = load_sample()
    with open_collection(path) as col:
        print("open", flush=True)
        batch = first
        while True:
            col.update(batch_rows(sample, batch))
            print(batch, flush=True)
            batch += 1


@dataclass(frozen=True)
class Survey:
    """What a reopened collection holds of the stream.

    Attributes
    ----------
    newest : int
        The newest batch of which any row is there.
    lost : int
        Acknowledged batches newer than that.
    partial : int
        Batches of which some rows are there, with number and vector, and others are not.
    """

    newest: int
    lost: int
    partial: int


def check_batches(col: Collection, sample: Sample, acknowledged: int) -> Survey:
    """Compare what is stored with what the stream wrote up to batch `acknowledged`."""
    stored: dict[str, int] = {}
    vectors: dict[str, FloatArray] = {}
    for rows in col.scan(fields=["id", "batch", "emb"]):
        written = np.array([batch is not None for batch in rows["batch"]])
        stored.update(zip(rows["id"][written], rows["batch"][written], strict=True))
        vectors.update(zip(rows["id"][written], rows["emb"][written], strict=True))
    newest = max(stored.values(), default=0)
    # Each round of the stream overwrites the one before, batch by batch.
    rounds = len(STREAM_ROWS) // BATCH_ROWS
    partial = 0
    for batch in range(max(1, newest - rounds + 1), newest + 1):
        whole = all(
            stored.get(want["id"]) == batch
            and np.allclose(vectors[want["id"]], want["emb"], atol=1e-3)
            for want in batch_rows(sample, batch)
        )
        partial += not whole
    return Survey(newest, max(0, acknowledged - newest), partial)


def _timed(call: Any, rows: int) -> UpsertResult:
    began_s = time.perf_counter()
    result: UpsertResult = call()
    elapsed_s = time.perf_counter() - began_s
    print(f"   {rows:,} rows in {elapsed_s * 1e3:.0f} ms ({rows / elapsed_s:,.0f} rows/s), durable")
    return result


def _counts(result: UpsertResult) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in result.counts.items() if count)


def _outcome_row(
    case: str, col: Collection, username: str, result: UpsertResult, row: int
) -> tuple[str, ...]:
    stored = col.get([username], on="username")
    return (
        case,
        Outcome(result.status[row]).name.lower(),
        str(stored["email"][0]),
        str(stored["preferences"][0]),
    )


def _heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    for line in (head, ["-" * width for width in widths], *rows):
        print(
            "   " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    stream_batches(sys.argv[1], int(sys.argv[2]))
