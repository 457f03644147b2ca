"""KeyIndex and first_occurrence against a dict, for every type of key column."""

import doctest
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upvec import _core

KeyIndex = _core.KeyIndex
first_occurrence = _core.first_occurrence

INT64 = st.integers(-(2**63), 2**63 - 1)
# Few distinct values, so that batches repeat keys, and the awkward ones among them.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 7 << 40]) | INT64,
    "string": st.sampled_from(["", "a", "b", "ab", "a\0", "\0", "ü", "日本", "x" * 300])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "bytes": st.sampled_from([b"", b"a", b"a\0", b"\0", b"\xff" * 40]) | st.binary(max_size=8),
    "float64": st.sampled_from([0.0, -0.0, 1.5, float("inf"), float("-inf"), 5e-324])
    | st.floats(allow_nan=False),
    "bool": st.booleans(),
    # Microseconds; the least int64 is NaT.
    "timestamp": st.sampled_from([0, -1, 1]) | st.integers(-(2**63) + 1, 2**63 - 1),
}
DTYPES = {
    "int64": "int64",
    "string": "object",
    "bytes": "object",
    "float64": "float64",
    "bool": "bool",
    "timestamp": "datetime64[us]",
}


def columns_of(types: list[str], rows: list[tuple[Any, ...]]) -> list[np.ndarray]:
    return [np.array([row[c] for row in rows], dtype=DTYPES[name]) for c, name in enumerate(types)]


TYPES = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3)


@st.composite
def types_and_batches(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, list[Any]]]]:
    types = draw(TYPES)
    row = st.tuples(*(VALUES[name] for name in types))
    operation = st.tuples(
        st.sampled_from(["assign", "assign", "erase", "find"]), st.lists(row, max_size=20)
    )
    return types, draw(st.lists(operation, max_size=8))


@given(types_and_batches(), st.integers(0, 2**64 - 1))
@settings(max_examples=300, deadline=None)
def test_key_index_does_what_a_dict_does(
    case: tuple[list[str], list[tuple[str, list[Any]]]], seed: int
) -> None:
    types, operations = case
    index = KeyIndex(types, seed=seed)
    model: dict[Any, int] = {}
    number = 0
    seen: list[Any] = []
    for name, rows in operations:
        columns = columns_of(types, rows)
        seen += rows
        if name == "assign":
            numbers = np.arange(number, number + len(rows))
            number += len(rows)
            assert index.assign(columns, numbers) is None
            model.update(zip(rows, numbers.tolist(), strict=True))
        elif name == "erase":
            want = [model.pop(row, None) is not None for row in rows]
            erased = index.erase(columns)
            assert erased.dtype == np.bool_
            assert erased.tolist() == want
        else:
            assert index.find(columns).tolist() == [model.get(row, -1) for row in rows]
        assert len(index) == len(model)
    found = index.find(columns_of(types, seen))
    assert found.dtype == np.int64
    assert found.tolist() == [model.get(row, -1) for row in seen]


@given(types_and_batches())
@settings(deadline=None)
def test_first_occurrence_is_where_a_dict_saw_the_key_first(
    case: tuple[list[str], list[tuple[str, list[Any]]]],
) -> None:
    types, operations = case
    rows = [row for _, batch in operations for row in batch] * 2
    first: dict[Any, int] = {}
    want = [first.setdefault(row, i) for i, row in enumerate(rows)]
    got = first_occurrence(types, columns_of(types, rows))
    assert got.dtype == np.int64
    assert got.tolist() == want


def test_components_do_not_run_into_each_other() -> None:
    index = KeyIndex(["string", "string"])
    index.assign([["ab", "", "a"], ["c", "abc", "bc"]], [0, 1, 2])
    assert index.find([["ab", "", "a", "abc"], ["c", "abc", "bc", ""]]).tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("int64", [3, 4]),
        ("int64", (3, 4)),
        ("int64", np.array([3, 4], dtype=object)),
        ("int64", np.array([3, 4], dtype=np.int32)),
        ("int64", np.array([3, 4], dtype=np.uint16)),
        ("int64", np.array([3, 9, 4])[::2]),
        ("int64", np.array([3, 4], dtype=">i8")),
        ("string", ["x", "y"]),
        ("string", np.array(["x", "y"])),
        ("string", np.array(["x", None, "y"], dtype=object)[::2]),
        ("string", [np.str_("x"), "y"]),
        ("bytes", [b"x", b"y"]),
        ("bytes", np.array([b"x", b"y"])),
        ("float64", [0.5, 1.5]),
        ("float64", np.array([0.5, 1.5], dtype=np.float32)),
        ("bool", [False, True]),
        ("timestamp", np.array([3, 4], dtype="datetime64[us]")),
    ],
)
def test_columns_may_be_lists_or_arrays(name: str, column: Any) -> None:
    index = KeyIndex([name])
    index.assign([column], [1, 2])
    assert index.find([column]).tolist() == [1, 2]
    assert first_occurrence([name], [column]).tolist() == [0, 1]


def test_both_zeros_are_one_key() -> None:
    index = KeyIndex(["float64"])
    index.assign([[0.0]], [5])
    assert index.find([[-0.0]]).tolist() == [5]


def test_empty_batches_are_fine() -> None:
    for name in VALUES:
        index = KeyIndex([name])
        empty = [np.array([], dtype=DTYPES[name])]
        index.assign(empty, [])
        assert index.find(empty).shape == (0,)
        assert index.erase(empty).shape == (0,)
        assert first_occurrence([name], empty).shape == (0,)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("int64", [1, 2.0], "column 0, row 1: got float, want int"),
        ("int64", [True], "column 0, row 0: got bool, want int"),
        ("int64", [1, None], "column 0, row 1: got NoneType, want int"),
        ("int64", np.array([1.0]), "column 0: got an array of float64, want int"),
        ("int64", np.array([1], dtype=np.uint64), "column 0: got an array of uint64, want int"),
        ("int64", "12", "column 0: got str, want an array or list of int"),
        ("string", ["a", b"b"], "column 0, row 1: got bytes, want str"),
        ("string", np.array([1]), "column 0: got an array of int64, want str"),
        ("string", "abc", "column 0: got str, want an array or list of str"),
        ("bytes", [b"a", "b"], "column 0, row 1: got str, want bytes"),
        ("float64", [1.0, 1], "column 0, row 1: got int, want float"),
        ("bool", [True, 1], "column 0, row 1: got int, want bool"),
        ("timestamp", [0], "column 0: got list, want an array of datetime64[us]"),
        (
            "timestamp",
            np.array([1], dtype="datetime64[s]"),
            "column 0: got an array of datetime64[s], want datetime64[us]",
        ),
    ],
)
def test_a_wrong_type_is_named_with_its_row(name: str, column: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        KeyIndex([name]).find([column])
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("int64", [2**63], "column 0, row 0: 9223372036854775808 does not fit into int64"),
        ("int64", np.zeros((2, 2), np.int64), "column 0: got an array of 2 dimensions, want 1"),
        ("float64", [0.0, float("nan")], "column 0, row 1: NaN cannot be a key"),
        ("float64", np.array([np.nan]), "column 0, row 0: NaN cannot be a key"),
        ("timestamp", np.array(["NaT"], "datetime64[us]"), "column 0, row 0: NaT cannot be a key"),
        (
            "string",
            ["\ud800"],
            "column 0, row 0: the string holds a lone surrogate, which has no UTF-8",
        ),
    ],
)
def test_a_value_that_cannot_be_a_key_is_named_with_its_row(
    name: str, column: Any, message: str
) -> None:
    with pytest.raises(ValueError, match="column 0") as raised:
        KeyIndex([name]).find([column])
    assert str(raised.value) == message


def test_unequal_columns_are_refused() -> None:
    index = KeyIndex(["string", "int64"])
    with pytest.raises(ValueError, match="column 1 has 2 rows, column 0 has 1"):
        index.find([["a"], [1, 2]])
    with pytest.raises(ValueError, match="got 1 columns, want 2"):
        index.find([["a"]])
    with pytest.raises(ValueError, match="got 1 values for 2 keys"):
        index.assign([["a", "b"], [1, 2]], [1])


@pytest.mark.parametrize("value", [-1, 2**32 - 1, 2**32])
def test_values_out_of_range_are_refused_and_change_nothing(value: int) -> None:
    index = KeyIndex(["int64"])
    with pytest.raises(ValueError, match=r"values, row 1: .* is outside \[0, 2\*\*32 - 2\]"):
        index.assign([[1, 2]], [0, value])
    assert len(index) == 0
    index.assign([[1]], [2**32 - 2])
    assert index.find([[1]]).tolist() == [2**32 - 2]


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ValueError, match='unknown column type "int32"; known: int64, string'):
        KeyIndex(["int32"])
    for types in ([], "int64"):
        with pytest.raises(ValueError, match="a list of at least one column type"):
            KeyIndex(types)


def test_nbytes_follows_what_is_held() -> None:
    index = KeyIndex(["string"])
    empty = index.nbytes()
    index.assign([["x" * 100_000]], [0])
    assert index.nbytes() > empty + 100_000
    index.erase([["x" * 100_000]])
    assert index.nbytes() < empty + 10_000


@pytest.mark.parametrize("name", ["int64", "string"])
def test_finding_beside_a_writer_sees_no_other_values(name: str) -> None:
    keys = [i if name == "int64" else f"key {i}" for i in range(2000)]
    index = KeyIndex([name])
    index.assign([keys[::2]], np.arange(0, 2000, 2))
    done = threading.Event()
    wrong: list[int] = []

    def find() -> None:
        want = np.arange(2000)
        while not done.is_set():
            got = index.find([keys])
            bad = (got != want) & ~((got == -1) & (want % 2 == 1))
            wrong.extend(want[bad].tolist())

    finders = [threading.Thread(target=find) for _ in range(2)]
    for finder in finders:
        finder.start()
    for _ in range(20):
        index.assign([keys[1::2]], np.arange(1, 2000, 2))
        index.erase([keys[1::2]])
    done.set()
    for finder in finders:
        finder.join()
    assert wrong == []


def test_examples_in_the_docstrings_hold() -> None:
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    for documented in (KeyIndex, first_occurrence):
        for example in finder.find(documented, documented.__name__, module=_core):
            runner.run(example)
    assert runner.tries >= 6
    assert runner.failures == 0
