"""What ``import upvec`` brings with it: a count that is the same on every machine."""

from __future__ import annotations

import json
import subprocess
import sys

PROBE = """
import json, sys
import numpy
before = set(sys.modules)
import upvec
print(json.dumps(sorted(set(sys.modules) - before)))
"""

# Each of these takes 5 ms or more, and none is needed to open a collection.
HEAVY = (
    "asyncio", "concurrent.futures", "ctypes.util", "email", "http", "inspect", "multiprocessing",
    "numpy.testing", "opentelemetry", "pandas", "polars", "pyarrow", "pydantic", "socket", "ssl",
    "torch", "tqdm", "unittest", "urllib.request", "xml",
)  # fmt: skip


def imported() -> list[str]:
    run = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True)
    found: list[str] = json.loads(run.stdout)
    return found


def test_importing_upvec_imports_nothing_heavy() -> None:
    found = imported()
    assert "upvec.collection" in found
    assert [name for name in found if name in HEAVY or name.startswith("pandas.")] == []


def test_importing_upvec_imports_few_modules() -> None:
    # Measured with -X importtime, medians of 15: numpy 92 ms, upvec beside it 57 ms (.62), of
    # which no module takes more than 7. 70 of its own and 30 of the standard library's now.
    others = [name for name in imported() if not name.startswith("upvec")]
    assert len(others) <= 45, others
