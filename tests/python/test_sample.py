import numpy as np

from upvec.sample import Sample


def test_sample_has_one_row_of_each_embedding_per_record(sample: Sample) -> None:
    assert len({record["id"] for record in sample.records}) == 2000
    for vectors in (sample.v1, sample.v2):
        assert vectors.shape == (2000, 384)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_second_embedding_is_of_the_same_records(sample: Sample) -> None:
    similarity = sample.v1 @ sample.v2.T
    own = np.diag(similarity).mean()
    assert own > 0.7
    assert own > similarity.mean() + 0.5
