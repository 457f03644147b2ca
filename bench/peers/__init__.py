"""upvec.Index beside other libraries: same data, same degree, same run."""
