"""The examples of the guide run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="needs pip install 'upvec[langchain]'")

GUIDE = Path(__file__).parents[3] / "python" / "guides" / "integrations.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = GUIDE.read_text(encoding="utf-8")
    examples = list(EXAMPLE.finditer(text))
    assert len(examples) == 4
    names: dict[str, Any] = {}
    for example in examples:
        above = text[: example.start(1)].count("\n")  # so that a traceback names the line
        exec(compile("\n" * above + example[1], str(GUIDE), "exec"), names)
