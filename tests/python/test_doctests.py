"""The examples in the docstrings, run against the upvec that is imported, installed or not."""

import doctest
import importlib
import pkgutil

import pytest

import upvec

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(upvec.__path__, "upvec.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["upvec", *MODULES])
def test_examples_in_docstrings_hold(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.startswith("upvec"):
            raise
        pytest.skip(f"{name} needs {missing.name}, which is not installed")
    monkeypatch.chdir(tmp_path_factory.mktemp("doctest"))  # examples may write files by name
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
