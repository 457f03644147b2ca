"""``python -m upvec``: where the C++ side of this installation lies, for build systems."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m upvec", description=__doc__)
    parser.add_argument(
        "--cmakedir",
        action="store_true",
        required=True,
        help="print the folder to pass to CMake as upvec_DIR",
    )
    parser.parse_args()
    folder = Path(__file__).parent / "lib" / "cmake" / "upvec"
    if not folder.is_dir():
        parser.error(f"{folder} does not exist: this upvec runs from a checkout, not installed")
    print(folder)  # noqa: T201


if __name__ == "__main__":
    main()
