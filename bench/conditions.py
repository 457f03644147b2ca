"""What a condition costs, by an index and without, and what an index costs a write.

``python -m bench.conditions``: 10^6 rows (``--rows``), each condition to a bitmap of row ids.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from itertools import count as count_from
from statistics import median
from typing import Any

import numpy as np

import upvec
from upvec.condition import condition_in, select_bits
from upvec.state import State

CITIES = 20
# Of commits of one row, so that each of them changes something.
_turns = count_from(1)
CONDITIONS = [
    ("equality, 20 strings", "city = 'city 3'"),
    ("equality, all strings distinct", "name = 'name 77'"),
    ("equality, 1,000 integers", "age = 77"),
    ("range of integers", "age < 300"),
    ("range of floats", "score >= 0.9"),
    ("one of five strings", "city in ['city 1', 'city 5', 'city 9', 'city 12', 'city 15']"),
    ("prefix of 20 strings", "city.startswith('city 1')"),
    ("in a list", "'tag 7' in tags"),
    ("not equal", "city != 'city 3'"),
    ("integers, no index", "plain_age < 300"),
    ("floats and nulls, no index", "plain_score >= 0.9"),
    ("strings, no index", "plain_city = 'city 3'"),
    ("index and integers without", "city = 'city 3' and plain_age < 300"),
    ("index, few rows, and strings without", "name = 'name 77' and plain_city = 'city 3'"),
    ("index or integers without", "city = 'city 3' or plain_age < 300"),
    ("text in json, of one in 100", "meta['by'] = 'author 7'"),
    ("number in json, all texts read", "meta['year'] >= 2020"),
]


def schema(*, index: bool) -> upvec.Schema:
    def indexed(name: str, kind: str) -> upvec.Field:
        return upvec.Field(name, kind, index=index)

    return upvec.Schema(
        upvec.Field("id", "int64", primary=True),
        indexed("city", "string"),
        indexed("name", "string"),
        indexed("age", "int64"),
        indexed("score", "float64"),
        indexed("tags", "list<string>"),
        upvec.Field("plain_city", "string"),
        upvec.Field("plain_age", "int64"),
        upvec.Field("plain_score", "float64", nullable=True),
        upvec.Field("meta", "json", nullable=True),
    )


def rows(ids: Any, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    count = len(ids)
    cities = np.array([f"city {i}" for i in range(CITIES)], dtype=object)
    tags = [f"tag {i}" for i in range(50)]
    pairs = random.integers(0, len(tags), (count, 2)).tolist()
    score = random.random(count)
    return {
        "id": ids,
        "city": cities[random.integers(0, CITIES, count)],
        "name": [f"name {i}" for i in random.permutation(count).tolist()],
        "age": random.integers(0, 1000, count),
        "score": score,
        "tags": [[tags[a], tags[b]] for a, b in pairs],
        "plain_city": cities[random.integers(0, CITIES, count)],
        "plain_age": random.integers(0, 1000, count),
        "plain_score": [None if i % 10 == 0 else x for i, x in enumerate(score.tolist())],
        "meta": [
            {"by": f"author {i % 100}", "year": 2000 + i % 25, "title": f"The title of paper {i}"}
            for i in range(count)
        ],
    }


def once_us(call: Callable[..., object], *arguments: Any) -> float:
    start = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - start) * 1e6


def forget(state: State) -> None:
    """Leave the indexes, and of all that is remembered which rows live."""
    selector = state.selector
    with selector._lock:
        selector._entries.clear()
        selector._bytes = 0
    select_bits(state, None)


def conditions(collection: upvec.Collection, count: int, repeats: int) -> None:
    """Print times: the best by itself, the best again, the median after a commit of one row."""
    print(f"{'condition, us':40s}{'rows':>9s}{'not cached':>12s}{'cached':>9s}{'after 1 row':>13s}")
    for title, text in CONDITIONS:
        state = collection._reading()
        where = condition_in(state, text)
        found = select_bits(state, where).count
        cold, warm, after = [], [], []
        for _ in range(repeats):
            forget(state)
            cold.append(once_us(select_bits, state, where))
            warm.append(once_us(select_bits, state, where))
        for _ in range(repeats):
            turn = next(_turns)
            number, city = turn % 1000, f"city {turn % CITIES}"
            row = {"id": turn * 997 % count, "city": city, "age": number, "score": number / 1000}
            row |= {"name": f"new {turn}", "tags": [f"tag {turn % 50}"]}
            plain = {"plain_age": number, "plain_city": city, "plain_score": number / 1000}
            plain["meta"] = {"by": city, "year": number}
            collection.upsert([row | plain])
            after.append(once_us(select_bits, collection._reading(), where))
        print(f"{title:40s}{found:9,d}{min(cold):12.0f}{min(warm):9.0f}{median(after):13.0f}")


def writes(collection: upvec.Collection, count: int, batch: int, repeats: int) -> dict[str, float]:
    """Return the best time of an upsert of some fields."""
    random = np.random.default_rng(3)
    taken = {}
    for field in ("city", "name", "age", "tags"):
        times = []
        for turn in range(repeats):
            changed = rows(random.choice(count, batch, replace=False), turn + 50)
            cells = {"id": changed["id"], field: changed[field]}
            times.append(once_us(collection.upsert, cells))
        taken[field] = min(times)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    count, repeats = arguments.rows, arguments.repeats
    made = rows(np.arange(count), 0)
    collections = {}
    for index in (True, False):
        collections[index] = upvec.open(":memory:", schema(index=index))
        collections[index].upsert(made)
    del made
    gc.collect()
    gc.freeze()
    state = collections[True]._reading()
    print("the first condition on a field, which makes its index:")
    for text in ("city = ''", "name = ''", "age = 0", "score = 0", "'' in tags"):
        where = condition_in(state, text)
        print(f"  {text:14s}{once_us(select_bits, state, where) / 1e3:8.0f} ms")
    print(f"indexes: {state.selector.indexes.nbytes() / 1e6:.0f} MB\n")
    conditions(collections[True], count, repeats)
    for batch in (1, 1000):
        with_index = writes(collections[True], count, batch, repeats)
        without = writes(collections[False], count, batch, repeats)
        print(f"\nupsert of {batch} scattered rows, one field, us (with index / without):")
        for field, taken in with_index.items():
            ratio = taken / without[field]
            print(f"  {field:6s}{taken:9.0f} / {without[field]:7.0f} = {ratio:.2f}")


if __name__ == "__main__":
    main()
