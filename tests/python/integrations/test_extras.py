"""What an integration says when what it extends is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import upvec


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("haystack", "haystack", "haystack"),
        ("llama_index", "llama_index.core", "llama-index"),
    ],
)
def test_a_missing_extra_is_named(module: str, missing: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import upvec.integrations.{module}"
    environment = {**os.environ, "PYTHONPATH": str(Path(upvec.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode != 0
    assert f"pip install 'upvec[{extra}]'" in done.stderr.splitlines()[-1]


def test_upvec_imports_none_of_them() -> None:
    code = "import sys, upvec; print([m for m in sys.modules if 'integrations' in m])"
    environment = {**os.environ, "PYTHONPATH": str(Path(upvec.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
