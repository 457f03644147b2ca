"""The sample of real embeddings that comes with upvec, for the demo, tests and first trials."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Sample", "load_sample"]

# In an installed package the files lie beside this one; in a checkout, with the benchmarks.
_PLACES = (
    Path(__file__).parent / "data",
    Path(__file__).parents[2] / "bench" / "data",
)


@dataclass(frozen=True)
class Sample:
    """Two thousand WordNet synsets with two embeddings each.

    Attributes
    ----------
    records : list of dict
        ``id``, ``lemmas``, ``definition``, ``gloss`` and ``pos`` of each synset.
    v1 : ndarray of shape (2000, 384), float32
        Embeddings of the definitions, of unit length.
    v2 : ndarray of shape (2000, 384), float32
        Embeddings of lemmas, definition and examples: the same records, re-embedded.
    """

    records: list[dict[str, Any]]
    v1: npt.NDArray[np.float32]
    v2: npt.NDArray[np.float32]


def load_sample() -> Sample:
    """Load the sample; every call reads it anew, so what it returns may be changed.

    Returns
    -------
    Sample
        Records and embeddings; row i of each array belongs to record i.

    Raises
    ------
    FileNotFoundError
        If the package was installed without its data files.

    Examples
    --------
    >>> from upvec.sample import load_sample
    >>> sample = load_sample()
    >>> len(sample.records), sample.v1.shape, sample.v2.dtype
    (2000, (2000, 384), dtype('float32'))
    >>> sample.records[0]["lemmas"]
    ['entity']
    """
    folder = next((place for place in _PLACES if place.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"the sample is in none of {', '.join(map(str, _PLACES))}")
    with gzip.open(folder / "wordnet-2k.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return Sample(
        records=records,
        v1=np.load(folder / "wordnet-2k-v1.f16.npy").astype(np.float32),
        v2=np.load(folder / "wordnet-2k-v2.f16.npy").astype(np.float32),
    )
