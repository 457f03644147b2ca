"""The examples of the guides run as they stand, each guide's one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

GUIDES = Path(__file__).parents[2] / "python" / "guides"
# How many each has, so that none is left out for its spelling.
EXAMPLES = {"operations.md": 7, "preparing-for-upserts.md": 6, "tuning.md": 5}
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize(("guide", "count"), sorted(EXAMPLES.items()))
def test_the_examples_run(
    guide: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = GUIDES / guide
    text = path.read_text(encoding="utf-8")
    examples = list(EXAMPLE.finditer(text))
    assert len(examples) == count
    names: dict[str, Any] = {}
    for example in examples:
        above = text[: example.start(1)].count("\n")  # so that a traceback names the line
        exec(compile("\n" * above + example[1], str(path), "exec"), names)


@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=lambda path: path.name)
def test_what_guides_link_to_is_there(guide: Path) -> None:
    for link in LINK.findall(guide.read_text(encoding="utf-8")):
        assert (guide.parent / link).exists(), link
