"""Outside C++ projects build against the installed package, and get what they ask for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSUMERS = ROOT / "tests" / "consumer"

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def configure(project: str, build: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("cmake", "-S", CONSUMERS / project, "-B", build, *arguments)


def build_and_run(build: Path) -> None:
    built = run("cmake", "--build", build, "--parallel", "2")
    assert built.returncode == 0, built.stdout + built.stderr
    ran = run(build / "consumer")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "nearest: 1 0\n"


@pytest.fixture(scope="module")
def upvec_dir() -> str:
    asked = run(sys.executable, "-m", "upvec", "--cmakedir")
    if asked.returncode != 0:
        pytest.skip("upvec runs from the checkout; these tests want it installed: pip install .")
    return f"-Dupvec_DIR={asked.stdout.strip()}"


def test_find_package_gives_a_library_that_links_and_runs(tmp_path: Path, upvec_dir: str) -> None:
    configured = configure("installed", tmp_path, upvec_dir)
    assert configured.returncode == 0, configured.stderr
    build_and_run(tmp_path)


def test_sources_can_be_a_subdirectory_of_another_project(tmp_path: Path) -> None:
    configured = configure("subdirectory", tmp_path, f"-DUPVEC_SOURCE={ROOT}")
    assert configured.returncode == 0, configured.stderr
    build_and_run(tmp_path)


def test_a_version_that_there_is_not_is_refused(tmp_path: Path, upvec_dir: str) -> None:
    configured = configure("refused", tmp_path, upvec_dir)
    assert configured.returncode != 0
    assert 'compatible with requested version "99"' in " ".join(configured.stderr.split())
