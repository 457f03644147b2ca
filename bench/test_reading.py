"""The comparison of scans with copies runs, and reads what it says."""

from __future__ import annotations

import numpy as np
import pytest

from bench import reading


def test_the_smoke_run_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert reading.main(["--smoke"]) == 0
    printed = capsys.readouterr().out
    assert "of the copy's rate" in printed
    assert "order_by" in printed


def test_the_collection_holds_the_columns_that_are_copied() -> None:
    columns = reading._columns(3_000)
    (rows,) = reading._collection(columns).scan()
    for name, column in columns.items():
        assert np.array_equal(rows[name], column)
