"""Valid bytes, changed at random: read, or refused by name, in memory in proportion to them.

``UPVEC_FUZZ=1000000`` tries as many. Under atheris: tests/fuzz/fuzz_decoders.py.
"""

from __future__ import annotations

import os
import random
import sys
import tracemalloc
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz_decoders  # noqa: E402

TRIES = int(os.environ.get("UPVEC_FUZZ", "20000"))
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def changed(seed: bytes, rng: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(1, len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice(INTERESTING)
        elif kind == 2:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 4:
            data[at:at] = bytes([0xFF]) * rng.randrange(1, 10)
        else:
            del data[at:]
    return bytes(data)


def test_changed_bytes_are_read_or_refused() -> None:
    rng = random.Random(12)
    seeds = [*fuzz_decoders.seeds(), *(path.read_bytes() for path in corpus())]
    for _ in range(TRIES):
        data = changed(rng.choice(seeds), rng)
        try:
            fuzz_decoders.check_decoder(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            pytest.fail(f"{data!r}: {error!r}")


def test_the_corpus_and_the_seeds_are_read_or_refused_in_little_memory() -> None:
    for data in [*fuzz_decoders.seeds(), *(path.read_bytes() for path in corpus())]:
        tracemalloc.start()
        fuzz_decoders.check_decoder(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4_000_000 + 200 * len(data), data


def corpus() -> list[Path]:
    return sorted((FUZZ / "corpus" / "decoders").glob("*"))
