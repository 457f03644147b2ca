"""UPVEC_SIMD: every level that this machine has gives the same index, nearly to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
import numpy as np
import upvec
from upvec.sample import load_sample
sample = load_sample()
ix = upvec.Index(384, metric="cosine")
ix.upsert(np.arange(1000), sample.v1[:1000])
ix.upsert(np.arange(0, 1000, 2), sample.v2[:1000:2])
ix.remove(np.arange(0, 1000, 5))
codes = upvec.Index(384, metric="cosine", keep="none")
codes.upsert(np.arange(1000), sample.v1[:1000])
codes.upsert(np.arange(1000), sample.v1[:1000] * 0.999 + sample.v2[:1000] * 0.001)
codes.upsert(np.arange(0, 1000, 2), sample.v2[:1000:2])
codes.remove(np.arange(0, 1000, 5))
found, exact = ix.search(sample.v2[1000:1200]), ix.exact_search(sample.v2[1000:1200])
np.savez(sys.argv[1], simd=ix.simd, ok=ix.check().ok, found=found.keys, exact=exact.keys,
         distances=exact.distances, digest=codes.digest())
"""


def run(level: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        env={**os.environ, "UPVEC_SIMD": level},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512", "neon"])
def test_every_level_finds_what_scalar_finds(tmp_path: Path, level: str) -> None:
    outcome = run(level, tmp_path / "level.npz")
    if outcome.returncode != 0 and "available" in outcome.stderr:
        pytest.skip(f"no {level} here")
    assert outcome.returncode == 0, outcome.stderr
    assert run("scalar", tmp_path / "scalar.npz").returncode == 0
    mine, scalar = np.load(tmp_path / "level.npz"), np.load(tmp_path / "scalar.npz")
    assert str(mine["simd"]) == level
    assert mine["ok"]
    # Where codes are all that is kept, nothing but integers decides.
    assert str(mine["digest"]) == str(scalar["digest"])
    hits = [np.intersect1d(a, b).size for a, b in zip(mine["found"], mine["exact"], strict=True)]
    assert np.mean(hits) >= 9.5
    np.testing.assert_allclose(mine["distances"], scalar["distances"], atol=1e-5)
    assert (mine["exact"] == scalar["exact"]).mean() >= 0.99
    assert (mine["found"] == scalar["found"]).mean() >= 0.97


def test_a_level_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    outcome = run("mmx", tmp_path / "level.npz")
    assert outcome.returncode != 0
    assert "mmx" in outcome.stderr
    assert "scalar" in outcome.stderr
