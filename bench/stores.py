"""What other embedded stores do with upserts that nobody prepared: python -m bench.stores.

Prints what happened, in figures, for whichever of chromadb, lancedb and qdrant-client are
installed, and for upvec. The guide "Preparing for upserts" quotes it. Everything is tried in small:
these are questions of what is stored, not of speed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_DIM = 4
_WRITERS = 4
_draw = np.random.default_rng(0)

Tried = dict[str, Callable[[], object]]


def vector() -> list[float]:
    """A vector; what it is does not matter here."""
    listed: list[float] = _draw.random(_DIM).astype(np.float32).tolist()
    return listed


def together(work: Callable[[int], None]) -> None:
    """Let some threads do it at one time."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def chroma() -> Tried:
    """Chroma, in a directory of its own."""
    import chromadb

    client = chromadb.PersistentClient(tempfile.mkdtemp())
    names: Iterator[str] = (f"collection-{number}" for number in range(100))

    def fresh(**rows: Any) -> Any:
        made = client.create_collection(next(names))
        if rows:
            made.upsert(**rows)
        return made

    def types() -> object:
        ages = [40 if at % 100 else "40" for at in range(1_000)]
        col = fresh(
            ids=[str(at) for at in range(1_000)],
            embeddings=[vector() for _ in ages],
            metadatas=[{"age": age} for age in ages],
        )
        found = len(col.get(where={"age": {"$gte": 30}})["ids"])
        return f"{col.count()} rows stored without a word, {found} found by age >= 30"

    def absent() -> object:
        col = fresh(ids=["a"], embeddings=[vector()], metadatas=[{"x": 1, "y": 2}])
        col.upsert(ids=["a"], embeddings=[vector()], metadatas=[{"x": 5}])
        return dict(col.get(ids=["a"])["metadatas"][0])

    def unique() -> object:
        col = fresh()

        def work(number: int) -> None:
            for at in range(50):
                email = f"{at}@x.org"
                if not col.get(where={"email": email})["ids"]:
                    row = {"ids": [f"{number}-{at}"], "metadatas": [{"email": email}]}
                    col.upsert(**row, embeddings=[vector()])

        together(work)
        return f"{col.count()} rows for 50 emails"

    def counter() -> object:
        col = fresh(ids=["a"], embeddings=[vector()], metadatas=[{"n": 0}])

        def work(_: int) -> None:
            for _ in range(50):
                n = col.get(ids=["a"])["metadatas"][0]["n"]
                col.update(ids=["a"], metadatas=[{"n": n + 1}])

        together(work)
        return f"{col.get(ids=['a'])['metadatas'][0]['n']} after 200 additions"

    def duplicates() -> object:
        return fresh().upsert(ids=["a", "a"], embeddings=[vector(), vector()])

    def answer() -> object:
        col = fresh(ids=["a"], embeddings=[vector()])
        return col.upsert(ids=["a", "b"], embeddings=[vector(), vector()])

    def partly() -> object:
        col = fresh(ids=["z"], embeddings=[vector()])
        try:
            col.upsert(ids=["a", "b", "c"], embeddings=[vector(), [1.0, 2.0], vector()])
        except Exception as error:  # noqa: BLE001  (whatever it raises)
            return f"{type(error).__name__}, and {col.count() - 1} of 3 rows stored"
        return f"no error, {col.count() - 1} of 3 rows stored"

    return {
        "types": types, "absent": absent, "unique": unique, "counter": counter,
        "duplicates": duplicates, "answer": answer, "partly": partly,
    }  # fmt: skip


def qdrant() -> Tried:
    """Qdrant's client in its local mode, which is for one thread."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=tempfile.mkdtemp())
    names = (f"collection-{number}" for number in range(100))

    def fresh() -> str:
        name = next(names)
        config = models.VectorParams(size=_DIM, distance=models.Distance.EUCLID)
        client.create_collection(name, vectors_config=config)
        return name

    def point(key: int, at: list[float] | None = None, **payload: Any) -> Any:
        return models.PointStruct(id=key, vector=at or vector(), payload=payload)

    def types() -> object:
        name = fresh()
        client.upsert(name, [point(at, age=40 if at % 100 else "40") for at in range(1_000)])
        wanted = models.FieldCondition(key="age", range=models.Range(gte=30))
        found = client.count(name, count_filter=models.Filter(must=[wanted])).count
        rows = client.count(name).count
        return f"{rows} rows stored without a word, {found} found by age >= 30"

    def absent() -> object:
        name = fresh()
        client.upsert(name, [point(1, x=1, y=2)])
        client.upsert(name, [point(1, x=5)])
        return client.retrieve(name, [1])[0].payload

    def unique() -> object:
        name = fresh()
        for key in (1, 2):
            client.upsert(name, [point(key, email="a@x.org")])
        return f"{client.count(name).count} rows for 1 email"

    def duplicates() -> object:
        name = fresh()
        client.upsert(name, [point(1, n=1), point(1, n=2)])
        return f"no error; stored: {client.retrieve(name, [1])[0].payload}"

    def answer() -> object:
        name = fresh()
        client.upsert(name, [point(1)])
        return repr(client.upsert(name, [point(1), point(2)]))

    def partly() -> object:
        name = fresh()
        try:
            client.upsert(name, [point(1), point(2, [1.0, 2.0]), point(3)])
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}, and {client.count(name).count} of 3 rows stored"
        return f"no error, {client.count(name).count} of 3 rows stored"

    return {
        "types": types, "absent": absent, "unique": unique, "duplicates": duplicates,
        "answer": answer, "partly": partly,
    }  # fmt: skip


def lance() -> Tried:
    """LanceDB, in a directory of its own."""
    import lancedb
    import pyarrow as pa

    base = lancedb.connect(tempfile.mkdtemp())
    names = (f"table_{number}" for number in range(100))
    layout = pa.schema(
        [
            ("id", pa.int64()),
            ("email", pa.string()),
            ("n", pa.int64()),
            ("emb", pa.list_(pa.float32(), _DIM)),
        ]
    )

    def row(key: int, email: str | None, n: int = 0) -> dict[str, Any]:
        return {"id": key, "email": email, "n": n, "emb": vector()}

    def fresh(*rows: dict[str, Any]) -> Any:
        return base.create_table(next(names), pa.Table.from_pylist(list(rows), schema=layout))

    def merge(table: Any, on: str, *rows: dict[str, Any]) -> Any:
        merging = table.merge_insert(on).when_matched_update_all().when_not_matched_insert_all()
        return merging.execute(pa.Table.from_pylist(list(rows), schema=layout))

    def unique() -> object:
        table = fresh(row(0, "x"))
        failed: list[str] = []

        def work(number: int) -> None:
            mine = base.open_table(table.name)
            for at in range(1, 26):
                try:
                    merge(mine, "id", row(at, str(number)))
                except Exception as error:  # noqa: BLE001, PERF203
                    failed.append(type(error).__name__)

        together(work)
        ids = base.open_table(table.name).to_arrow()["id"].to_pylist()
        errors = f", {len(failed)} errors" if failed else ", no error"
        return f"{len(ids) - 1} rows for {len(set(ids)) - 1} keys that four writers upsert{errors}"

    def nulls() -> object:
        table = fresh(row(1, "x"))
        merge(table, "email", row(2, None), row(3, None), row(4, "y"))
        return f"{table.count_rows() - 1} of 3 rows stored, of which 2 have a null in the key"

    def counter() -> object:
        table = fresh(row(1, "x", 0))
        failed: list[str] = []

        def work(_: int) -> None:
            mine = base.open_table(table.name)
            for _ in range(10):
                try:
                    mine.checkout_latest()
                    n = mine.search().where("id = 1").to_list()[0]["n"]
                    mine.update(where="id = 1", values={"n": n + 1})
                except Exception as error:  # noqa: BLE001, PERF203
                    failed.append(type(error).__name__)

        together(work)
        table.checkout_latest()
        n = table.to_arrow()["n"].to_pylist()[0]
        return f"{n} after 40 additions, of which {len(failed)} raised"

    def duplicates() -> object:
        table = fresh(row(1, "x"))
        try:
            merge(table, "id", row(7, "a", 1), row(7, "b", 2))
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        return f"no error, {table.count_rows('id = 7')} rows with the key"

    def answer() -> object:
        return repr(merge(fresh(row(1, "x")), "id", row(1, "y"), row(2, "z")))

    return {
        "unique": unique, "nulls": nulls, "counter": counter, "duplicates": duplicates,
        "answer": answer,
    }  # fmt: skip


def ours() -> Tried:
    """The same of upvec, prepared as the guide says."""
    import upvec

    def fresh() -> upvec.Collection:
        schema = upvec.Schema(
            upvec.Field("id", "string", primary=True),
            upvec.Field("age", "int64", nullable=True),
            upvec.Field("email", "string", nullable=True),
            upvec.Field("n", "int64", default=0, merge="sum_"),
            upvec.Vector("emb", _DIM, nullable=True),
            unique=[upvec.Unique("email")],
        )
        return upvec.open(tempfile.mkdtemp(), schema)

    def refused(rows: list[dict[str, Any]]) -> str:
        with fresh() as col:
            try:
                col.upsert(rows)
            except upvec.UpvecError as error:
                return f"{type(error).__name__}: {str(error)[:90]}...; {len(col)} rows stored"
            return f"no error, {len(col)} rows stored"

    def types() -> object:
        return refused([{"id": str(at), "age": 40 if at % 100 else "40"} for at in range(1_000)])

    def unique() -> object:
        with fresh() as col:

            def work(number: int) -> None:
                for at in range(50):
                    row = {"id": f"{number}-{at}", "email": f"{at}@x.org"}
                    if (
                        len(col.upsert([row], policy=upvec.Policy("insert_only", atomic=False)))
                        != 1
                    ):
                        raise AssertionError

            together(work)
            return f"{len(col)} rows for 50 emails"

    def counter() -> object:
        with fresh() as col:
            col.upsert([{"id": "a"}])

            def work(_: int) -> None:
                for _ in range(50):
                    col.upsert([{"id": "a", "n": 1}])

            together(work)
            return f"{col['a']['n']} after 200 additions"

    def answer() -> object:
        with fresh() as col:
            col.upsert([{"id": "a"}])
            return repr(col.upsert([{"id": "a"}, {"id": "b"}]))

    return {
        "types": types, "unique": unique, "counter": counter,
        "duplicates": lambda: refused([{"id": "a"}, {"id": "a"}]), "answer": answer,
        "partly": lambda: refused([{"id": "a"}, {"id": "b", "emb": [1.0, 2.0]}, {"id": "c"}]),
    }  # fmt: skip


STORES = {
    "chromadb": chroma,
    "qdrant-client": qdrant,
    "lancedb": lance,
    "upvec": ours,
}


def main() -> int:
    """Try them all, and print a table."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["ANONYMIZED_TELEMETRY"] = "False"
    print("| store | what | what happened |\n|---|---|---|")
    for package, make in STORES.items():
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            print(f"{package} is left out: pip install {package}", file=sys.stderr)
            continue
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "from the checkout"
        for name, work in make().items():
            try:
                said = work()
            except Exception as error:  # noqa: BLE001  (an error is an answer too)
                said = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            print(f"| {package} {version} | {name} | {said} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
