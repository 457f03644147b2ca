"""The bytes of a commit: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upvec.codec import (
    ColumnEffect,
    Effects,
    Operation,
    VectorEffect,
    decode,
    decode_column,
    encode,
    encode_column,
)
from upvec.errors import CorruptionError

I64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": I64,
    "float64": st.floats(allow_nan=False),
    "timestamp": I64.filter(lambda value: value != -(2**63)),
    "bool": st.booleans(),
    "string": TEXT,
    "json": st.sampled_from(['{"a": 1}', "[]", "null", '"é"']),
    "bytes": st.binary(max_size=12),
    "list<int64>": st.lists(I64, max_size=4),
    "list<float64>": st.lists(st.floats(allow_nan=False), max_size=4),
    "list<string>": st.lists(TEXT, max_size=4),
}
DTYPES: dict[str, Any] = {
    "int64": np.int64,
    "float64": np.float64,
    "timestamp": "datetime64[us]",
    "bool": np.bool_,
}


def values_of(type_name: str, items: list[Any]) -> np.ndarray:
    if type_name == "timestamp":
        return np.array(items, np.int64).view("datetime64[us]")
    if type_name in DTYPES:
        return np.array(items, DTYPES[type_name])
    values = np.empty(len(items), object)
    for at, item in enumerate(items):
        values[at] = item
    return values


def column(type_name: str, items: list[Any], **parts: Any) -> ColumnEffect:
    null = parts.get("null", np.zeros(len(items), bool))
    return ColumnEffect(parts.get("rows"), type_name, values_of(type_name, items), np.array(null))


def effects(rows: int = 0, **parts: Any) -> Effects:
    return Effects(
        deleted=np.array(parts.pop("deleted", []), np.int64),
        rids=np.arange(rows, dtype=np.int64) * 3,
        versions=np.ones(rows, np.int64),
        **parts,
    )


def payload(given_effects: Effects) -> bytes:
    return b"".join(encode(given_effects))


def same_column(got: ColumnEffect, want: ColumnEffect) -> None:
    assert got.type == want.type
    np.testing.assert_array_equal(got.null, want.null)
    if want.rows is None:
        assert got.rows is None
    else:
        np.testing.assert_array_equal(got.rows, want.rows)
    assert got.values.dtype == want.values.dtype
    if got.values.dtype == object:
        # By their text, as mutations make numbers that do not equal themselves.
        assert repr(got.values[~got.null].tolist()) == repr(want.values[~want.null].tolist())
        assert all(value is None for value in got.values[got.null])
    else:
        assert got.values[~got.null].tobytes() == want.values[~want.null].tobytes()
        assert not got.values[got.null].astype(np.int64).any()


def same(got: Effects, want: Effects) -> None:
    for name in ("deleted", "rids", "versions"):
        assert getattr(got, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    assert (got.op, got.notes) == (want.op, dict(want.notes))
    assert list(got.columns) == list(want.columns)
    for number, expected in want.columns.items():
        same_column(got.columns[number], expected)
    assert list(got.vectors) == list(want.vectors)
    for number, wanted in want.vectors.items():
        vector = got.vectors[number]
        np.testing.assert_array_equal(vector.null, wanted.null)
        np.testing.assert_array_equal(vector.rows, wanted.rows)
        assert vector.values.dtype == np.float32
        assert vector.values.shape == wanted.values.shape
        np.testing.assert_array_equal(vector.values[~vector.null], wanted.values[~wanted.null])
        assert not vector.values[vector.null].any()


def decode_or_refuse(entry: Any, data: bytes) -> Any:
    """Decode, or check that the refusal names a place in the data, and return None."""
    try:
        return entry(data)
    except CorruptionError as error:
        offset = error.offset
    assert 0 <= offset <= len(data)
    return None


@st.composite
def written_rows(draw: Any, total: int) -> tuple[np.ndarray | None, int]:
    if draw(st.booleans()):
        return None, total
    picked = sorted(draw(st.sets(st.integers(0, total - 1)))) if total else []
    return np.array(picked, np.int64), len(picked)


@st.composite
def any_effects(draw: Any) -> Effects:
    rids = sorted(draw(st.sets(st.integers(0, 2**32 - 2), max_size=40)))
    columns, vectors = {}, {}
    for number in sorted(draw(st.sets(st.integers(0, 65535), max_size=4))):
        rows, count = draw(written_rows(len(rids)))
        null = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
        type_name = draw(st.sampled_from(sorted(VALUES)))
        items = draw(st.lists(VALUES[type_name], min_size=count, max_size=count))
        columns[number] = column(type_name, items, rows=rows, null=null)
    for number in sorted(draw(st.sets(st.integers(0, 65535), max_size=2))):
        rows, count = draw(written_rows(len(rids)))
        null = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
        seed = draw(st.integers(0, 100))
        values = np.random.default_rng(seed).random((count, draw(st.integers(1, 9))), np.float32)
        vectors[number] = VectorEffect(rows, values, null)
    return Effects(
        deleted=np.array(draw(st.lists(st.integers(0, 2**32 - 2), max_size=5)), np.int64),
        rids=np.array(rids, np.int64),
        versions=np.array(
            draw(st.lists(st.integers(0, 2**63 - 1), min_size=len(rids), max_size=len(rids))),
            np.int64,
        ),
        columns=columns,
        vectors=vectors,
        op=draw(
            st.none()
            | st.builds(Operation, TEXT, st.integers(0, 2**64 - 1), st.binary(max_size=300))
        ),
        notes=draw(st.dictionaries(TEXT, st.binary(max_size=300), max_size=3)),
    )


@settings(max_examples=300, deadline=None)
@given(any_effects())
def test_what_is_encoded_is_decoded(given_effects: Effects) -> None:
    data = payload(given_effects)
    same(decode(memoryview(data)), given_effects)
    assert payload(decode(data)) == data


@settings(max_examples=400, deadline=None)
@given(any_effects(), st.randoms(use_true_random=False))
def test_mutated_bytes_are_refused_or_mean_something(given_effects: Effects, chance: Any) -> None:
    """No checksum here: whatever comes is either refused as corruption or a valid commit."""
    data = bytearray(payload(given_effects))
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                del data[at : at + chance.randrange(1, 9)]
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
        if not data:
            break
    decoded = decode_or_refuse(decode, bytes(data))
    if decoded is not None:
        same(decode(payload(decoded)), decoded)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_mean_something(data: bytes) -> None:
    decode_or_refuse(decode, b"\x01" + data)
    decode_or_refuse(decode_column, b"\x01" + data)


@settings(max_examples=150, deadline=None)
@given(any_effects())
def test_commit_cut_anywhere_is_refused(given_effects: Effects) -> None:
    data = payload(given_effects)
    for size in range(0, len(data), max(1, len(data) // 40)):
        with pytest.raises(CorruptionError):
            decode(data[:size])
    with pytest.raises(CorruptionError, match="after the end"):
        decode(data + b"\0")


@pytest.mark.parametrize("type_name", sorted(VALUES))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_column_by_itself_is_decoded(type_name: str, data: Any) -> None:
    items = data.draw(st.lists(VALUES[type_name], max_size=70))
    null = data.draw(st.lists(st.booleans(), min_size=len(items), max_size=len(items)))
    stored = column(type_name, items, null=np.array(null, bool))
    number, got = decode_column(b"".join(encode_column(7, stored)))
    assert number == 7
    same_column(got, stored)


@pytest.mark.parametrize("kind", ["ascii", "unicode"])
def test_large_columns_are_decoded(kind: str) -> None:
    chance = random.Random(5)
    word = "word" if kind == "ascii" else "wörd€"
    items = [word * chance.randrange(5) for _ in range(5000)]
    null = np.array([chance.random() < 0.1 for _ in items])
    commit = effects(
        5000,
        deleted=range(2**32 - 400, 2**32 - 100),
        columns={
            0: column("string", items, null=null),
            1: column("list<string>", [[item, word] for item in items]),
            2: column("float64", [chance.random() for _ in items], null=null),
            3: column("list<int64>", [[at] * (at % 3) for at in range(5000)], null=null),
            4: column("bool", [at % 3 == 0 for at in range(5000)]),
        },
        vectors={
            5: VectorEffect(None, np.random.default_rng(1).random((5000, 17), np.float32), null)
        },
    )
    same(decode(payload(commit)), commit)


def test_floats_keep_every_bit() -> None:
    bits = np.array([0x7FF8000000000001, 0x8000000000000000, 0xFFF0000000000000, 1], np.uint64)
    commit = effects(4, columns={0: column("float64", bits.view(np.float64).tolist())})
    commit = replace(commit, columns={0: replace(commit.columns[0], values=bits.view(np.float64))})
    got = decode(payload(commit)).columns[0].values
    np.testing.assert_array_equal(got.view(np.uint64), bits)
    vectors = np.array([[np.nan, -0.0, np.inf]], np.float32)
    commit = effects(1, vectors={0: VectorEffect(None, vectors, np.zeros(1, bool))})
    got = decode(payload(commit)).vectors[0].values
    np.testing.assert_array_equal(got.view(np.uint32), vectors.view(np.uint32))


def test_nulls_with_the_same_meaning_have_the_same_bytes() -> None:
    null = np.array([False, True])
    first = effects(2, columns={0: column("int64", [1, 7], null=null)})
    second = effects(2, columns={0: column("int64", [1, 9], null=null)})
    assert payload(first) == payload(second)
    third = effects(2, columns={0: column("string", ["a", "hidden"], null=null)})
    fourth = effects(2, columns={0: column("string", ["a", None], null=null)})
    assert payload(third) == payload(fourth)


def test_single_row_costs_little_more_than_its_values() -> None:
    texts = ["user-0012345", "ann@example.org", "Ann likes mountains and old maps."]
    commit = effects(
        1,
        columns={
            **{at: column("string", [text]) for at, text in enumerate(texts)},
            3: column("int64", [12]),
        },
        vectors={4: VectorEffect(None, np.ones((1, 384), np.float32), np.zeros(1, bool))},
    )
    own = sum(map(len, texts)) + 8 + 384 * 4
    assert len(payload(commit)) <= own + 48


def test_large_arrays_are_neither_copied_nor_unaligned() -> None:
    vectors = np.random.default_rng(0).random((100, 32), np.float32)
    commit = effects(
        100,
        columns={0: column("int64", list(range(100))), 1: column("bool", [True] * 100)},
        vectors={2: VectorEffect(None, vectors, np.zeros(100, bool))},
    )
    buffers = encode(commit)
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), vectors) for part in buffers)
    data = np.frombuffer(b"".join(buffers), np.uint8)
    got = decode(memoryview(data))
    assert np.shares_memory(got.vectors[2].values, data)
    assert np.shares_memory(got.columns[0].values, data)
    shifted = memoryview(b"x" + data.tobytes())[1:]
    assert decode(shifted).vectors[2].values.flags.aligned


def test_null_vectors_take_no_space() -> None:
    null = np.ones(1000, bool)
    commit = effects(1000, vectors={0: VectorEffect(None, np.ones((1000, 768), np.float32), null)})
    data = payload(commit)
    assert len(data) < 5000
    same(decode(data), commit)
    null[7] = False
    commit = effects(1000, vectors={0: VectorEffect(None, np.ones((1000, 768), np.float32), null)})
    same(decode(payload(commit)), commit)


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # deletions, more than 64 bits
        b"\x01\x00\xff\xff\xff\xff\xff\x7f\x08",  # deletions, very many
        b"\x01\x00\x00\xff\xff\xff\xff\xff\x7f\x01",  # rids
        b"\x01\x00\x00\x01\x01\x00\x01\x01\xff\xff\xff\xff\x7f",  # columns
        b"\x01\x00\x00\x01\x01\x00\x01\x01\x01\x00\x00\x05\x00\x04\xff\xff\xff\xff",  # a text
        b"\x01\x00\x00\x01\x01\x00\x01\x01\x01\x00\x00\x08\x00\x04\xff\xff\xff\xff",  # a list
        b"\x01\x00\x00\x01\x01\x00\x01\x01\x00\x01\x00\x00\x00\xff\xff\x3f",  # a vector
        b"\x01\x02\x00\x00\x00\x00\xff\xff\xff\xff\xff\x7f",  # notes
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode(data)
    tracemalloc.start()
    with pytest.raises(CorruptionError):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02\x00", "payload format 2; this build reads 1"),
        (b"\x01\x04", "unknown payload flags"),
        (b"\x01\x00\x01\x03", "width 3"),
        (b"\x01\x00\x01\x04\xff\xff\xff\xff", "is beyond"),
        (b"\x01\x00\x00\x01\x01\x00\x08" + b"\xff" * 8, "beyond 63 bits"),
        (b"\x01\x00\x00\x00\x02\x00\x00\x05\x00\x00\x00\x05\x00\x00", "column 0 comes twice"),
        (b"\x01\x00\x00\x00\x01\x00\x00\x63\x00\x00", "unknown type 99"),
        (b"\x01\x00\x00\x00\x01\x00\x00\x01\x08\x00", "unknown column flags"),
        (b"\x01\x00\x00\x01\x01\x00\x01\x01\x01\x00\x00\x05\x00\x01\x01\xff\x00", "not UTF-8"),
        (b"\x01\x00\x00\x01\x01\x00\x01\x01\x01\x00\x00\x04\x00\x02\x00", "bits after the last"),
        (
            b"\x01\x00\x00\x01\x01\x00\x01\x01\x01\x00\x00\x04\x01\x01\x01\x01\x00",
            "do not increase",
        ),
        (b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00", "dim 0"),
    ],
)
def test_error_names_what_is_wrong_and_where(data: bytes, message: str) -> None:
    with pytest.raises(CorruptionError, match=message) as caught:
        decode(data)
    assert caught.value.offset is not None
    assert f"byte {caught.value.offset}:" in str(caught.value)


@pytest.mark.parametrize(
    ("commit", "message"),
    [
        (effects(2, columns={0: column("int64", [1])}), "1 values for 2 rows"),
        (effects(2, columns={0: column("int64", [1, 2], null=[True])}), "another length"),
        (effects(2, columns={0: column("int64", [1], rows=np.array([2]))}), "stay below 2"),
        (effects(2, columns={0: column("int64", [1, 2], rows=np.array([1, 0]))}), "increase"),
        (effects(1, columns={0: column("int64", [1], rows=np.array([-1]))}), "negative"),
        (effects(1, columns={70000: column("int64", [1])}), "field number"),
        (
            effects(1, columns={0: ColumnEffect(None, "int8", np.ones(1), np.zeros(1, bool))}),
            "int8",
        ),
        (effects(1, columns={0: column("string", ["\ud800"])}), "surrogates"),
        (effects(0, deleted=[2**32 - 1]), "is beyond"),
        (effects(0, deleted=[-1]), "negative"),
        (replace(effects(2), versions=np.ones(1, np.int64)), "2 rids but 1 versions"),
        (effects(0, op=Operation("w", -1)), "unsigned"),
        (
            effects(1, vectors={0: VectorEffect(None, np.ones((1, 0), "f4"), np.zeros(1, bool))}),
            "shape",
        ),
    ],
)
def test_effects_that_contradict_themselves_are_not_encoded(commit: Effects, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(commit)


def test_column_by_itself_has_all_rows() -> None:
    part = column("int64", [1], rows=np.array([0]))
    with pytest.raises(ValueError, match="all its rows"):
        encode_column(0, part)
    with pytest.raises(CorruptionError, match="1000 rows in"):
        decode_column(b"\x01\xe8\x07\x00\x00\x04\x00")
