"""What the logger ``upvec`` is told, and at which level."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import upvec

SCHEMA = upvec.Schema(upvec.Field("id", "int64", primary=True))


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    records = [(one.levelno, one.getMessage()) for one in caplog.records]
    assert all(one.name.startswith("upvec.") for one in caplog.records)
    caplog.clear()
    return records


def test_opening_and_closing_and_checkpoints_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c"
    col = upvec.open(path, SCHEMA)
    assert told(caplog) == [(logging.INFO, f"opened {path}: 0 rows, commit 0")]
    col.upsert([{"id": 1}, {"id": 2}])
    col.get([1])
    assert told(caplog) == []
    col.checkpoint()
    ((level, message),) = told(caplog)
    assert level == logging.INFO
    assert message.startswith(f"wrote a checkpoint of {path} at commit 1: ")
    col.upsert([{"id": 3}])
    col.close()
    col.close()
    assert told(caplog) == [(logging.INFO, f"closed {path} at commit 2")]
    upvec.open(path).close()
    replayed, opened, closed = told(caplog)
    assert replayed[1].startswith(f"replayed the log of {path} up to commit 2: ")
    assert opened == (logging.INFO, f"opened {path}: 3 rows, commit 2")
    assert closed == (logging.INFO, f"closed {path} at commit 2")
    upvec.open(path, read_only=True).close()
    assert (logging.INFO, f"opened {path} for reading: 3 rows, commit 2") in told(caplog)


DIES = """
import os, sys, upvec
col = upvec.open(sys.argv[1], upvec.Schema(upvec.Field("id", "int64", primary=True)))
for n in range(3):
    col.upsert([{"id": n}])
os._exit(0)
"""


def test_a_takeover_is_told_and_a_truncated_tail_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c"
    subprocess.run([sys.executable, "-c", DIES, path], check=True)
    (segment,) = (path / "log").glob("*.log")
    whole = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"torn" * 10)
    upvec.open(path).close()
    records = told(caplog)
    takeover = f"took over {path / 'log'} at commit 3 from a writer that did not close it"
    assert (logging.INFO, takeover) in records
    ((message, *others),) = ([m for level, m in records if level == logging.WARNING],)
    assert message.startswith(f"cut 40 bytes after commit 3 off {segment}: ")
    assert not others
    assert segment.stat().st_size >= whole
    upvec.open(path).close()  # it was closed
    assert all(level == logging.INFO and "took over" not in m for level, m in told(caplog))


def test_without_handlers_nothing_is_printed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, tmp_path / "c"], check=True)
    script = "import sys, upvec; upvec.open(sys.argv[1]).close()"
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "c"], check=True, capture_output=True
    )
    assert (run.stdout, run.stderr) == (b"", b"")
