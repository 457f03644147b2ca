"""Columns: what a reader holds never changes, and only touched chunks are copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upvec._core import gather
from upvec.columns import CHUNK_BITS, CHUNK_ROWS, Column, ColumnWriter, Selection, same_cells

INT = np.dtype(np.int64)


def write(column: Column, rids: Any, values: Any, null: Any = None) -> Column:
    rids = np.asarray(rids, dtype=np.int64)
    writer = ColumnWriter(column, int(rids.max()) + 1 if len(rids) else 0)
    mask = None if null is None else np.asarray(null, dtype=np.bool_)
    writer.write(Selection(rids), np.asarray(values, dtype=column.dtype), mask)
    return writer.finish()


def test_a_held_column_keeps_its_values_and_nulls() -> None:
    old = write(Column(INT), range(10), range(10), [False] * 9 + [True])
    new = write(old, [3, 9], [33, 99])
    assert old.to_array()[0].tolist()[:9] == list(range(9))
    assert old.to_array()[1].tolist() == [False] * 9 + [True]
    assert new.gather(np.array([3, 9, 0]))[0].tolist() == [33, 99, 0]
    assert new.gather(np.array([3, 9, 0]))[1] is None


def test_only_touched_chunks_are_copied() -> None:
    old = write(Column(INT), range(3 * CHUNK_ROWS), range(3 * CHUNK_ROWS))
    new = write(old, [CHUNK_ROWS + 5], [0])
    shared = [a is b for a, b in zip(old.chunks, new.chunks, strict=True)]
    assert shared == [True, False, True]


def test_new_rows_are_written_in_place_and_stay_unseen_by_older_columns() -> None:
    old = write(Column(INT), range(10), range(10))
    new = write(old, [10, 11], [5, 6], [True, False])
    assert new.chunks[0] is old.chunks[0]
    assert (old.size, new.size) == (10, 12)
    assert (len(old.to_array()[0]), old.to_array()[1]) == (10, None)
    assert new.to_array()[1].tolist() == [False] * 10 + [True, False]


def test_a_chunk_with_old_and_new_rows_is_copied() -> None:
    old = write(Column(INT), range(10), range(10))
    new = write(old, [12, 3], [5, 33])
    assert old.gather(np.array([3]))[0].tolist() == [3]
    assert new.gather(np.array([3, 12]))[0].tolist() == [33, 5]


@pytest.mark.parametrize("rows", [0, 1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS])
def test_from_array_and_to_array_are_inverse(rows: int) -> None:
    values = np.array([str(i) for i in range(rows)], dtype=object)
    null = np.arange(rows) % 3 == 1
    column = Column.from_array(values, null)
    back, back_null = column.to_array()
    assert back.tolist() == values.tolist()
    assert ([] if back_null is None else back_null.tolist()) == null.tolist()


@given(
    st.lists(st.lists(st.integers(0, 3 * CHUNK_ROWS - 1), unique=True, max_size=8), max_size=6),
    st.booleans(),
)
def test_any_writes_read_back_as_an_array_would(batches: list[list[int]], objects: bool) -> None:
    dtype = np.dtype(object) if objects else INT
    column, held = Column(dtype), []
    plain: dict[int, tuple[int, bool]] = {}
    for number, rids in enumerate(batches):
        values, null = [number] * len(rids), [rid % 2 == number % 2 for rid in rids]
        held.append((column, dict(plain)))
        if rids:
            column = write(column, rids, values, null)
        plain |= {rid: (number, gap) for rid, gap in zip(rids, null, strict=True)}
    for version, expected in [*held, (column, plain)]:
        rids = np.array(list(expected), dtype=np.int64)
        values, null = version.gather(rids)
        gaps = np.zeros(len(rids), bool) if null is None else null
        assert list(zip(values.tolist(), gaps.tolist(), strict=True)) == list(expected.values())


def test_cells_are_the_same_if_equal_or_both_null_or_both_nan() -> None:
    left = np.array([1, np.nan, 2, 3]), np.array([False, False, True, True])
    right = np.array([1, np.nan, 5, 3]), np.array([False, False, True, False])
    assert same_cells(left, right).tolist() == [True, True, True, False]


def test_gather_refuses_rows_and_chunks_that_are_not_there() -> None:
    chunks = (np.arange(CHUNK_ROWS), np.arange(3))
    nulls = (None, None)

    def gathered(rids: Any, chunks: Any = chunks, dtype: Any = INT) -> Any:
        return gather(dtype, chunks, nulls, CHUNK_BITS, np.asarray(rids, dtype=np.int64))[0]

    assert gathered([CHUNK_ROWS + 2, 5]).tolist() == [2, 5]
    for beyond in ([-1], [CHUNK_ROWS + 3], [2 * CHUNK_ROWS], [2**62]):
        with pytest.raises(IndexError, match=str(beyond[0])):
            gathered(beyond)
    for wrong in (([1, 2],), (np.arange(6, dtype=np.int32),), (np.arange(6)[::2],), (None,)):
        with pytest.raises(TypeError, match="chunk"):
            gathered([0], wrong)
    for other in ("f4", "?", "V24"):
        cells = np.frombuffer(np.random.default_rng(0).bytes(24 * 4), dtype=other)
        assert gathered([3, 0], (cells,), np.dtype(other)).tobytes() == cells[[3, 0]].tobytes()
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = gathered([3, 0], (vectors,), np.dtype((np.float32, 3)))
    assert found.tolist() == vectors[[3, 0]].tolist()
    with pytest.raises(TypeError, match="another dtype"):
        gathered([0], (np.array([None, None]),))
