"""The Python examples of the README run as they stand, one after the other."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
EXAMPLES = list(re.finditer(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert EXAMPLES
    for example in EXAMPLES:
        above = TEXT[: example.start(1)].count("\n")  # so that a traceback names the README's line
        exec(compile("\n" * above + example[1], str(README), "exec"), names)
