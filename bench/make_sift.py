"""Make the SIFT sets from photographs of public packages; bench/README.md has the commands.

The pictures are those of Debian's wallpaper packages and the samples of scikit-image and
scikit-learn; the descriptors are OpenCV's, with its default settings.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_SEED = 42
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
# Debian's packages install to these two.
_FOLDERS = (Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers"))
_SAMPLES = (("skimage", "data"), ("sklearn", "datasets/images"))
# Larger ones are scaled down: OpenCV doubles a picture first, and then needs some 60 bytes a pixel.
_LONGEST_SIDE = 2560
# A picture full of leaves or noise must not make up the set, nor the queries.
_MOST_OF_ONE = 25_000  # the default; with 150,000 the packages of bench/README give 470,446 rows
_MOST_QUERIES_OF_ONE = 2_000
_MOST = 1_000_000
# Every tenth picture gives queries instead of rows.
_QUERY_PICTURES = 0.1
_QUERIES = 10_000


class Picture(NamedTuple):
    """A file, and what to call it."""

    name: str
    path: Path


def find_pictures(folders: Iterable[Path]) -> list[Picture]:
    """Every picture once, by name: of the same picture in several sizes, the largest file."""
    largest: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in _SUFFIXES or path.stem in {"screenshot", "logo"}:
                continue
            name = _without_size(f"{folder.name}/{path.relative_to(folder)}")
            if name not in largest or largest[name].stat().st_size < path.stat().st_size:
                largest[name] = path
    return [Picture(name, path) for name, path in sorted(largest.items())]


def _without_size(name: str) -> str:
    # Dark and light, upright and wide versions show the same things too.
    plain = re.sub(r"[_-]?\d{3,}x\d{3,}|_dark|_?Portrait|-[dl](?=\.)", "", name)
    return re.sub(r"/contents/images/", "", plain)


def descriptors(path: Path, cv2: Any) -> Bytes:
    """SIFT descriptors of one picture: (n, 128); n is 0 if it cannot be read or shows nothing."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        return np.empty((0, 128), dtype=np.uint8)
    shrink = _LONGEST_SIDE / max(grey.shape)
    if shrink < 1:
        grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    _, found = cv2.SIFT_create().detectAndCompute(grey, None)
    if found is None:
        return np.empty((0, 128), dtype=np.uint8)
    # OpenCV computes floats that are whole numbers from 0 to 255.
    return np.asarray(found, dtype=np.uint8)


def _distinct(rows: Bytes) -> Bytes:
    return np.unique(rows, axis=0)


def _absent(rows: Bytes, present: Bytes) -> Bytes:
    known = {row.tobytes() for row in present}
    return rows[[row.tobytes() not in known for row in rows]]


def _described(
    pictures: Iterable[Picture], draw: np.random.Generator, most: int
) -> Iterator[Bytes]:
    import cv2  # type: ignore[import-not-found,unused-ignore]

    cv2.setNumThreads(1)  # so that the order of what it finds does not depend on the machine
    for picture in pictures:
        rows = _distinct(descriptors(picture.path, cv2))
        taken = draw.permutation(rows)[:most]
        print(f"{len(rows):8,} found {len(taken):8,} taken  {picture.name}", flush=True)
        yield taken


def _package_folders() -> Iterator[Path]:
    for package, inside in _SAMPLES:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / inside


def main() -> None:
    """Describe the pictures and write base and queries as uint8, each in random order."""
    parser = argparse.ArgumentParser(prog="python -m bench.make_sift", description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--pictures", type=Path, nargs="+", default=_FOLDERS, metavar="DIR")
    parser.add_argument(
        "--of-one", type=int, default=_MOST_OF_ONE, metavar="ROWS", help="most rows of one picture"
    )
    options = parser.parse_args()
    folders = [*options.pictures, *_package_folders()]
    pictures = find_pictures(folders)
    if not pictures:
        parser.error(f"no pictures in {', '.join(map(str, folders))}")

    draw = np.random.default_rng(_SEED)
    order = draw.permutation(len(pictures))
    held_out = max(1, round(_QUERY_PICTURES * len(pictures)))
    print(f"{held_out} pictures for queries:")
    apart = [pictures[i] for i in order[:held_out]]
    asked = _distinct(np.concatenate([*_described(apart, draw, _MOST_QUERIES_OF_ONE)]))
    print(f"{len(pictures) - held_out} pictures for the base:")
    others = [pictures[i] for i in order[held_out:]]
    base = draw.permutation(_distinct(np.concatenate([*_described(others, draw, options.of_one)])))
    base = base[:_MOST]
    queries = draw.permutation(_absent(asked, base))[:_QUERIES]

    options.out.mkdir(parents=True, exist_ok=True)
    np.save(options.out / "sift-u8.npy", base)
    np.save(options.out / "sift-queries-u8.npy", queries)
    print(f"{len(base):,} rows and {len(queries):,} queries in {options.out}")


if __name__ == "__main__":
    main()
