"""Counts what searches do, as JSON; run by bench.limit with a build that counts.

python -m bench.limit.count INDEX QUERIES K EF...: for every ef, `Index.stats()` before and after
one call with all queries, and before and after one call a query.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from upvec.index import Index


def main() -> None:
    path, queries_path, k, *efs = sys.argv[1:]
    index = Index.load(path)
    queries = np.load(queries_path)
    counted = []
    for ef in efs:
        stats = [index.stats()]
        index.search(queries, int(k), ef=int(ef), threads=1)
        stats.append(index.stats())
        for query in queries:
            index.search(query, int(k), ef=int(ef), threads=1)
        stats.append(index.stats())
        counted.append({"by_one_call": stats[:2], "one_a_call": stats[1:]})
    json.dump(counted, sys.stdout)


if __name__ == "__main__":
    main()
