"""Fixtures that all tests share."""

import pytest

from upvec.sample import Sample, load_sample


@pytest.fixture(scope="session")
def sample() -> Sample:
    """Real embeddings; read-only, because every test of the session gets the same arrays."""
    loaded = load_sample()
    loaded.v1.flags.writeable = False
    loaded.v2.flags.writeable = False
    return loaded
