"""Options of the tests of the Python package."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--kills``."""
    parser.addoption("--kills", type=int, help="how often test_kill kills a writer (default 10)")
