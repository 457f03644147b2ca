"""upvec.Index beside hnswlib and usearch: same data, same degree, same run."""
