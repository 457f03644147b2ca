"""A build of the checkout that counts, and the program that measures the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class BuildError(Exception):
    """The build failed; the message is what it printed."""


@dataclass(frozen=True)
class Built:
    """Attributes
    ----------
    package : Path
        Folder from which `import upvec` gives the build that counts.
    program : Path
        `upvec_limit`.
    """

    package: Path
    program: Path

    def counted(self, arguments: Sequence[str]) -> Any:
        """What `bench.limit.count` prints, in a process of its own: two cores can't be in one."""
        command = [sys.executable, "-m", "bench.limit.count", *arguments]
        return _json_of(command, {**os.environ, "PYTHONPATH": str(self.package)})

    def measured(self, arguments: Sequence[str]) -> Any:
        """What the program prints."""
        return _json_of([str(self.program), *arguments], os.environ)


def _json_of(command: Sequence[str], environment: Mapping[str, str]) -> Any:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def build(folder: Path, jobs: int) -> Built:
    """Build there, or what has changed since the last time."""
    made = folder / "build"
    options = ["PYTHON=ON", "COUNTERS=ON", "LIMIT=ON", "INSTALL=OFF"]
    defined = [f"-DUPVEC_{option}" for option in options]
    defined += ["-DCMAKE_BUILD_TYPE=Release", f"-DPython_EXECUTABLE={sys.executable}"]
    _run(["cmake", "-S", str(ROOT), "-B", str(made), *defined])
    targets = ["upvec_core", "upvec_limit"]
    _run(["cmake", "--build", str(made), "--parallel", str(jobs), "--target", *targets])
    package = folder / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(
        ROOT / "python" / "upvec",
        package / "upvec",
        ignore=shutil.ignore_patterns("_core*.so", "__pycache__"),
    )
    for module in made.glob("_core*.so"):
        shutil.copy(module, package / "upvec")
    return Built(package, made / "upvec_limit")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}")
