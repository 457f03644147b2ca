"""LangChain's own suites on the stores, and what they do not ask for."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from upvec import Field, Schema, Vector, col

pytest.importorskip("langchain_core", reason="needs pip install 'upvec[langchain]'")
pytest.importorskip("langchain_tests", reason="needs pip install langchain-tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing.base import DocumentIndex
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from langchain_tests.integration_tests.indexer import (
    AsyncDocumentIndexTestSuite,
    DocumentIndexerTestSuite,
)

from upvec.integrations.langchain import UpvecDocumentIndex, UpvecVectorStore

beta = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

USERS_SCHEMA = Schema(
    Field("key", "string", primary=True),
    Field("text", "string"),
    Field("views", "int64", nullable=True, merge=upvec.sum_()),
    Vector("emb", 6, metric="l2"),
    extra="store",
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- The published suites ------------------------------------------------------------------------


@pytest.mark.anyio
class TestInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:  # type: ignore[override]
        store = UpvecVectorStore(self.get_embeddings())
        yield store
        store.close()


@pytest.mark.anyio
class TestOnDisk(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:  # type: ignore[override]
        store = UpvecVectorStore(self.get_embeddings(), tmp_path / "documents")
        yield store
        store.close()


@pytest.mark.anyio
class TestInACollectionOfTheUser(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:  # type: ignore[override]
        with upvec.open(":memory:", USERS_SCHEMA) as collection:
            yield UpvecVectorStore(self.get_embeddings(), collection=collection)


@beta
class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self) -> Iterator[DocumentIndex]:
        return UpvecDocumentIndex(store=UpvecVectorStore(DeterministicFakeEmbedding(size=6)))


@beta
@pytest.mark.anyio
class TestDocumentIndexAsync(AsyncDocumentIndexTestSuite):
    @pytest.fixture
    def index(self) -> Iterator[DocumentIndex]:  # type: ignore[override]
        return UpvecDocumentIndex(store=UpvecVectorStore(DeterministicFakeEmbedding(size=6)))


# --- What they do not ask for --------------------------------------------------------------------


class Letters(Embeddings):
    """Vectors that tell the letters a to d apart: texts that share them are near."""

    def __init__(self) -> None:
        self.asked = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += len(texts)
        return [[0.1 + text.count(letter) for letter in "abcd"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


LIBRARY = [
    Document(
        id="1", page_content="a", metadata={"year": 1990, "by": {"name": "Ada"}, "open": True}
    ),
    Document(id="2", page_content="ab", metadata={"year": 2000, "tags": ["x", "y"], "dot.ted": 1}),
    Document(
        id="3", page_content="abc", metadata={"year": 2010, "by": {"name": "Bob"}, "tags": []}
    ),
    Document(id="4", page_content="abcd", metadata={"year": None, "title": "On %_ signs"}),
    Document(id="5", page_content="d", metadata={}),
]
FILTERS: list[tuple[Any, str]] = [
    ({}, "12345"),
    (None, "12345"),
    ({"year": 2000}, "2"),
    ({"year": 2000.0}, "2"),
    ({"year": None}, "45"),
    ({"year": {"$ne": 2000}}, "1345"),
    ({"year": {"$ne": None}}, "123"),
    ({"year": {"$gt": 1990, "$lt": 2010}}, "2"),
    ({"year": {"$gte": 1990, "$lte": 2000}}, "12"),
    ({"year": {"$between": [1990, 2000]}}, "12"),
    ({"year": {"$in": [1990, 2010]}}, "13"),
    ({"year": {"$in": [1990, None]}}, "145"),
    ({"year": {"$in": []}}, ""),
    ({"year": {"$nin": [1990, 2010]}}, "245"),
    ({"year": {"$nin": [1990, None]}}, "23"),
    ({"year": {"$nin": []}}, "12345"),
    ({"year": {"$exists": True}}, "1234"),
    ({"year": {"$exists": False}}, "5"),
    ({"year": {"$not": {"$gt": 1990}}}, "145"),
    ({"year": {"$gt": "1990"}}, ""),
    ({"open": True}, "1"),
    ({"open": {"$ne": True}}, "2345"),
    ({"by.name": "Ada"}, "1"),
    ({"by.name": {"$exists": False}}, "245"),
    ({("by", "name"): "Bob"}, "3"),
    ({"dot.ted": 1}, ""),
    ({("dot.ted",): 1}, "2"),
    ({"tags": {"$contains": "x"}}, "2"),
    ({"tags": ["x", "y"]}, "2"),
    ({"title": {"$contains": "signs"}}, "4"),
    ({"title": {"$startswith": "On"}}, "4"),
    ({"title": {"$like": "On %"}}, "4"),
    ({"title": {"$like": "on %"}}, ""),
    ({"title": {"$ilike": "ON %s_gns"}}, "4"),
    ({"title": {"$not": {"$like": "On %"}}}, "1235"),
    ({"year": 1990, "by.name": "Ada"}, "1"),
    ({"$and": [{"year": {"$gt": 1980}}, {"tags": {"$exists": True}}]}, "23"),
    ({"$or": [{"year": 1990}, {"tags": {"$contains": "y"}}]}, "12"),
    ({"$nor": [{"year": 1990}, {"tags": {"$contains": "y"}}]}, "345"),
    ({"$not": {"$or": [{"year": 1990}, {"year": 2000}]}}, "345"),
    ({"$not": {"year": {"$gt": 1980}, "tags": {"$exists": True}}}, "145"),
    (lambda document: "b" in document.page_content and document.id != "3", "24"),
    (col("metadata")["year"] > 1995, "23"),
    ("metadata['year'] > 1995 and id != '3'", "2"),
]


@pytest.fixture(scope="module")
def library() -> UpvecVectorStore:
    return UpvecVectorStore(Letters()).__class__.from_documents(LIBRARY, Letters())


@pytest.mark.parametrize(("wanted", "ids"), FILTERS, ids=lambda value: str(value)[:60])
def test_a_filter_chooses_among_schemaless_metadata(
    library: UpvecVectorStore, wanted: Any, ids: str
) -> None:
    found = library.similarity_search("abcd", k=10, filter=wanted)
    assert "".join(sorted(str(document.id) for document in found)) == ids
    assert [one for one in LIBRARY if one.id in ids] == sorted(found, key=lambda one: str(one.id))


def test_a_filter_chooses_the_same_among_fields_of_the_schema() -> None:
    fields = [
        Field("year", "int64", nullable=True, index=True),
        Field("tags", "list<string>", nullable=True),
        Field("title", "string", nullable=True, index=True),
        Field("open", "bool", nullable=True, index=True),
        Field("by", "json", nullable=True),
    ]
    store = UpvecVectorStore(Letters(), fields=fields)
    store.add_documents(LIBRARY)
    assert store.collection is not None
    assert store.get_by_ids(["1", "2", "3", "4", "5"]) == LIBRARY
    assert store.collection["1"]["year"] == 1990
    # A field of a type cannot be compared with another type, has no patterns but the plain ones,
    # cannot tell null from nothing, and is not found inside of another.
    apart = ("1990'}", "ON %s", "['x', 'y']", "metadata[", "{'year': {'$exists'")
    for wanted, ids in FILTERS:
        if not any(part in str(wanted) for part in apart):
            found = store.similarity_search("abcd", k=10, filter=wanted)
            assert "".join(sorted(str(one.id) for one in found)) == ids, wanted


def test_a_filter_over_a_field_of_the_schema_is_answered_by_its_index() -> None:
    store = UpvecVectorStore(Letters(), fields=[Field("year", "int64", nullable=True, index=True)])
    store.add_documents(LIBRARY)
    assert store.collection is not None
    where = store.where({"year": {"$gte": 2000}})
    hits = store.collection.search([1, 1, 1, 1], where=where, explain=True)
    assert hits.plan.conditions == ("year >= 2000: index, 2 rows",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wanted",
    [
        {"year": {"$near": 3}},
        {"$xor": []},
        {"$and": []},
        {"$or": {"year": 1}},
        {"year": {"$in": 3}},
        {"year": {"$gt": None}},
        {"year": {"$between": [1]}},
        {"year": {"$exists": 1}},
        {"title": {"$like": 3}},
        {"by": {"name": "Ada"}},
        {3: 4},
        {"year": object()},
        {"$not": 3},
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_is_refused(library: UpvecVectorStore, wanted: Any) -> None:
    with pytest.raises(upvec.ExpressionError):
        library.similarity_search("a", filter=wanted)


def test_a_search_with_a_filter_finds_all_that_it_can_however_far_they_are() -> None:
    store = UpvecVectorStore(DeterministicFakeEmbedding(size=16))
    texts = [f"text {number}" for number in range(2_000)]
    store.add_texts(texts, [{"number": number} for number in range(2_000)])
    found = store.similarity_search("text 0", k=10, filter={"number": {"$in": [3, 1500, 1999]}})
    assert sorted(one.metadata["number"] for one in found) == [3, 1500, 1999]


def test_scores_are_distances_and_relevance_is_from_0_to_1() -> None:
    for metric, furthest in (("cosine", 1.0), ("l2", 2.0), ("ip", 1.0)):
        store = UpvecVectorStore(_Axes(), metric=metric)
        store.add_texts(["x", "y", "-x"])
        scored = store.similarity_search_with_score("x", k=3)
        assert [one.page_content for one, _ in scored] == ["x", "y", "-x"]
        assert scored[0][1] == pytest.approx(0, abs=1e-6)
        assert scored[1][1] == pytest.approx(furthest, abs=1e-6)
        relevant = store.similarity_search_with_relevance_scores("x", k=3)
        assert [score for _, score in relevant] == pytest.approx([1, 0, 0], abs=1e-6)
        kept = store.similarity_search_with_relevance_scores("x", k=3, score_threshold=0.5)
        assert [one.page_content for one, _ in kept] == ["x"]


class _Axes(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        axes = {"x": [1.0, 0.0], "y": [0.0, 1.0], "-x": [-1.0, 0.0]}
        return [axes[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_marginal_relevance_prefers_what_is_unlike() -> None:
    store = UpvecVectorStore(Letters())
    store.add_texts(["aaaa", "aaaaa", "aaab", "cccc"], ids=["1", "2", "3", "4"])
    near = store.similarity_search("aaaa", k=2)
    unlike = store.max_marginal_relevance_search("aaaa", k=2, fetch_k=4, lambda_mult=0.1)
    assert [one.id for one in near] == ["1", "2"]
    assert [one.id for one in unlike] == ["1", "4"]
    same = asyncio.run(store.amax_marginal_relevance_search("aaaa", 2, 4, 0.1))
    assert [one.id for one in same] == ["1", "4"]
    filtered = store.max_marginal_relevance_search("aaaa", k=3, filter=lambda one: one.id != "4")
    assert {one.id for one in filtered} == {"1", "2", "3"}


def test_a_store_is_a_retriever() -> None:
    store = UpvecVectorStore(Letters())
    store.add_documents(LIBRARY)
    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"year": {"$gt": 1990}}})
    assert [one.id for one in retriever.invoke("abc")] == ["3", "2"]
    assert [one.id for one in asyncio.run(retriever.ainvoke("abc"))] == ["3", "2"]
    diverse = store.as_retriever(search_type="mmr", search_kwargs={"k": 2})
    assert len(diverse.invoke("abc")) == 2


def test_documents_are_there_when_the_collection_is_opened_again(tmp_path: Path) -> None:
    store = UpvecVectorStore(Letters(), tmp_path / "documents")
    store.add_documents(LIBRARY)
    store.close()
    again = UpvecVectorStore(Letters(), tmp_path / "documents")
    assert again.get_by_ids(["5", "3", "nothing", "1"]) == [LIBRARY[4], LIBRARY[2], LIBRARY[0]]
    again.close()


def test_a_document_that_comes_again_takes_the_place_of_the_stored_one() -> None:
    with upvec.open(":memory:", USERS_SCHEMA) as collection:
        store = UpvecVectorStore(DeterministicFakeEmbedding(size=6), collection=collection)
        store.add_texts(["first"], [{"views": 2, "other": 1}], ids=["a"])
        store.add_texts(["second"], [{"views": 3, "more": None}], ids=["a"])
        assert store.get_by_ids(["a"])[0].metadata == {"views": 3, "more": None}
        # By the rules of the schema, if that is asked for.
        store.add_texts(["third"], [{"views": 3}], ids=["a"], policy="merge")
        assert store.get_by_ids(["a"])[0].metadata["views"] == 6
        store.add_texts(["fourth"], [{"views": 3}], ids=["a"], policy="keep")
        assert store.get_by_ids(["a"])[0].page_content == "third"


def test_of_two_documents_with_one_id_the_last_is_stored() -> None:
    store = UpvecVectorStore(Letters())
    store.add_texts(["a", "b"], ids=["same", "same"])
    assert [one.page_content for one in store.get_by_ids(["same"])] == ["b"]


def test_every_batch_is_one_commit() -> None:
    store = UpvecVectorStore(Letters())
    store.add_documents(LIBRARY)
    assert store.collection is not None
    assert store.collection.seq == 1
    store.delete(["1", "2"])
    assert store.collection.seq == 2
    store.delete(filter={"year": 2010})
    assert [one.id for one in store.similarity_search("a", k=9)] == ["4", "5"]
    store.delete()
    assert len(store.collection) == 0


def test_what_the_schema_does_not_allow_is_refused_and_changes_nothing() -> None:
    schema = Schema(
        Field("id", "string", primary=True),
        Field("text", "string"),
        Field("year", "int64", check="year > 1900"),
        Vector("emb", 4),
    )
    with upvec.open(":memory:", schema) as collection:
        store = UpvecVectorStore(Letters(), collection=collection)
        for metadata in ({"year": 1}, {"year": "x"}, {}, {"year": 2000, "unknown": 1}):
            with pytest.raises(upvec.InvalidRowError):
                store.add_texts(["a"], [metadata])
        with pytest.raises(upvec.SchemaError, match="unknown metadatum 'unknown'"):
            store.similarity_search("a", filter={"unknown": 1})
        assert len(collection) == collection.seq == 0
        store.add_texts(["a"], [{"year": 2000}])
    store = UpvecVectorStore(Letters())
    for bad in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(upvec.InvalidRowError):
            store.add_texts(["a"], [bad])
    with pytest.raises(upvec.InvalidRowError, match="name of a metadatum"):
        store.add_documents([Document("a", metadata={1: 2})])
    with pytest.raises(ValueError, match="2 for 1 texts"):
        store.add_texts(["a"], ids=["1", "2"])


def test_a_collection_that_documents_cannot_lie_in_is_refused() -> None:
    vector, text = Vector("emb", 4), Field("text", "string")
    for schema, message in (
        (Schema(Field("id", "int64", primary=True), text, vector), "strings as ids"),
        (Schema(Field("id", "string", primary=True), vector), "no string field 'text'"),
        (Schema(Field("id", "string", primary=True), text), "vector fields are: none"),
        (Schema(Field("id", "string", primary=True), text, vector, Vector("b", 4)), "emb, b"),
    ):
        collection = upvec.open(":memory:", schema)
        with pytest.raises(upvec.SchemaError, match=message):
            UpvecVectorStore(Letters(), collection=collection)
    with pytest.raises(ValueError, match="one of the two"), upvec.open(":memory:", schema) as both:
        UpvecVectorStore(Letters(), "somewhere", both)


def test_vectors_of_another_dimension_are_refused() -> None:
    store = UpvecVectorStore(Letters())
    store.add_texts(["a"])
    other = UpvecVectorStore(DeterministicFakeEmbedding(size=5), collection=store.collection)
    with pytest.raises(upvec.DimensionError):
        other.add_texts(["a"])
    with pytest.raises(upvec.DimensionError):
        store.similarity_search_by_vector([1.0, 2.0])


def test_the_first_documents_may_come_from_many_threads_at_once() -> None:
    store = UpvecVectorStore(Letters())
    numbers = itertools.count()

    def add() -> None:
        for _ in range(20):
            store.add_texts(["abc"], ids=[str(next(numbers))])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.collection is not None
    assert len(store.collection) == 80


def test_an_unchanged_document_writes_no_vector() -> None:
    store = UpvecVectorStore(Letters())
    store.add_documents(LIBRARY)
    assert store.collection is not None
    before = store.collection.get(["1"], fields=["embedding"])["embedding"]
    store.add_documents(LIBRARY)
    after = store.collection.get(["1"], fields=["embedding"])["embedding"]
    assert np.array_equal(before, after)
    assert store.collection.verify().ok


@beta
def test_a_document_index_retrieves_by_text() -> None:
    index = UpvecDocumentIndex(store=UpvecVectorStore(Letters()), k=2)
    index.upsert(LIBRARY)
    assert [one.id for one in index.invoke("abcd")] == ["4", "3"]
    index.search_kwargs = {"filter": {"year": {"$exists": False}}}
    assert [one.id for one in asyncio.run(index.ainvoke("abcd"))] == ["5"]
    assert index.delete(filter={"year": 1990})["succeeded"] == ["1"]
