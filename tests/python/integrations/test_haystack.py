"""Haystack's own suites on the store, and what they do not ask for."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import upvec
from upvec import Field, Schema, Vector

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # it would tell of every pipeline that runs
pytest.importorskip("haystack", reason="needs pip install 'upvec[haystack]'")
pytest.importorskip(
    "haystack.testing.document_store_async", reason="needs pip install 'haystack-ai>=3.4'"
)
pytest.importorskip("pytest_asyncio", reason="needs pip install pytest-asyncio")

from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing import document_store as published
from haystack.testing import document_store_async as published_async
from haystack.utils.filters import document_matches_filter

from upvec.integrations.haystack import UpvecDocumentStore, UpvecEmbeddingRetriever

# From Haystack 3 on, pipelines are read from trusted modules alone.
ALLOWED: dict[str, Any] = {}
if "allowed_modules" in inspect.signature(Pipeline.loads).parameters:
    ALLOWED["allowed_modules"] = ["upvec.integrations.haystack.*"]

# --- The published suites ------------------------------------------------------------------------


def comparable(document: Document) -> dict[str, Any]:
    """Return what two documents must agree in: embeddings are of unit length, in float32."""
    described: dict[str, Any] = document.to_dict(flatten=False)
    if document.embedding is not None:
        unit = np.array(document.embedding) / np.linalg.norm(document.embedding)
        described["embedding"] = pytest.approx(unit, abs=1e-6)
    return described


class Comparing:
    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert len(received) == len(expected)
        for one, other in zip(received, expected, strict=True):
            left, right = comparable(one), comparable(other)
            left["embedding"] = one.embedding and np.array(one.embedding)
            assert left == right


class Base(
    Comparing,
    published.CountDocumentsByFilterTest,
    published.CountUniqueMetadataByFilterTest,
    published.GetMetadataFieldsInfoTest,
    published.GetMetadataFieldMinMaxTest,
    published.GetMetadataFieldUniqueValuesTest,
    published.DocumentStoreBaseExtendedTests,
):
    def test_write_documents(self, document_store: UpvecDocumentStore) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        self.assert_documents_are_equal(document_store.filter_documents(), [document])


class BaseAsync(
    Comparing,
    published_async.CountDocumentsAsyncTest,
    published_async.CountDocumentsByFilterAsyncTest,
    published_async.CountUniqueMetadataByFilterAsyncTest,
    published_async.DeleteAllAsyncTest,
    published_async.DeleteByFilterAsyncTest,
    published_async.DeleteDocumentsAsyncTest,
    published_async.FilterDocumentsAsyncTest,
    published_async.GetMetadataFieldsInfoAsyncTest,
    published_async.GetMetadataFieldMinMaxAsyncTest,
    published_async.GetMetadataFieldUniqueValuesAsyncTest,
    published_async.UpdateByFilterAsyncTest,
    published_async.WriteDocumentsAsyncTest,
):
    @pytest.mark.asyncio
    async def test_write_documents_async(self, document_store: UpvecDocumentStore) -> None:
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])


class TestInMemory(Base):
    @pytest.fixture
    def document_store(self) -> UpvecDocumentStore:
        return UpvecDocumentStore()


class TestInMemoryAsync(BaseAsync):
    @pytest.fixture
    def document_store(self) -> UpvecDocumentStore:
        return UpvecDocumentStore()


class TestOnDisk(Base):
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> Iterator[UpvecDocumentStore]:
        store = UpvecDocumentStore(str(tmp_path / "documents"))
        yield store
        store.close()


class TestOnDiskAsync(BaseAsync):
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> Iterator[UpvecDocumentStore]:
        store = UpvecDocumentStore(str(tmp_path / "documents"))
        yield store
        store.close()


class TestInACollectionOfTheUser(Base):
    """Metadata lie in fields of their own where there are some, else in ``_extra``."""

    @pytest.fixture
    def document_store(self) -> Iterator[UpvecDocumentStore]:
        schema = Schema(
            Field("key", "string", primary=True),
            Field("body", "string", nullable=True),
            Field("name", "string", nullable=True, index=True),
            Field("number", "float64", nullable=True, index=True),
            Field("category", "string", nullable=True, index=True),
            Vector("emb", 768, metric="cosine", nullable=True),
            extra="store",
        )
        with upvec.open(":memory:", schema) as collection:
            yield UpvecDocumentStore(collection=collection, content_field="body")


# --- Filters against Haystack's own --------------------------------------------------------------

VALUES: list[Any] = [
    None, True, False, 0, 1, -2, 2.5, 2.0, "", "a", "1", [], [1], ["a"],
    "2020-01-01", "2020-01-01T00:00:00", "2020-01-01T00:00:00Z", "2020-01-01T02:00:00+02:00",
    "2019-12-31T24:00", "2021-05-06 07:08:09", "2020-13-01", {"x": 1}, {"x": {"y": "a"}},
]  # fmt: skip
FIELDS = ["meta.a", "meta.b", "meta.b.x", "meta.b.x.y", "a", "meta.nothing", "other.thing"]

# In these Haystack sees dates, of this month or with month and day exchanged; we do not.
NO_DATES = ["1", "2020-13-01"]
stored_values = st.sampled_from([value for value in VALUES if value not in NO_DATES])
metas = st.dictionaries(st.sampled_from(["a", "b"]), stored_values)
values = st.sampled_from(VALUES)
comparisons = st.one_of(
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(FIELDS),
            "operator": st.sampled_from(["==", "!=", ">", ">=", "<", "<="]),
            "value": values,
        }
    ),
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(FIELDS),
            "operator": st.sampled_from(["in", "not in"]),
            "value": st.lists(values, max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(["id", "content"]),
            "operator": st.sampled_from(["==", "!="]),
            "value": st.sampled_from(["0", "1", None]),
        }
    ),
    st.just({"field": "embedding", "operator": "==", "value": None}),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.fixed_dictionaries(
        {
            "operator": st.sampled_from(["AND", "OR", "NOT"]),
            "conditions": st.lists(inner, max_size=3),
        }
    ),
    max_leaves=5,
)


def haystack_says(wanted: dict[str, Any], document: Document) -> bool | None:
    """Return None where it refuses to compare."""
    try:
        return document_matches_filter(wanted, document)
    except (FilterError, TypeError):
        return None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(metas, max_size=6), st.lists(filters, min_size=1, max_size=5))
def test_filters_mean_what_haystack_says(
    stored: list[dict[str, Any]], asked: list[dict[str, Any]]
) -> None:
    documents = [
        Document(
            id=str(row), content=str(row % 2) if row % 3 else None, meta=meta,
            embedding=[1.0, 2.0] if row % 2 else None,
        )
        for row, meta in enumerate(stored)
    ]  # fmt: skip
    store = UpvecDocumentStore(embedding_dim=2)
    store.write_documents(documents)
    for wanted in asked:
        try:
            found = {document.id for document in store.filter_documents(wanted)}
        except FilterError:
            ordered = [one for one in _leaves(wanted) if one["operator"] in {">", ">=", "<", "<="}]
            assert ordered, wanted  # else there is nothing to refuse
            continue
        said = {document.id: haystack_says(wanted, document) for document in documents}
        for key, matches in said.items():
            assert matches is None or matches == (key in found), (wanted, key)


def _leaves(condition: dict[str, Any]) -> list[dict[str, Any]]:
    if "field" in condition:
        return [condition]
    return [leaf for part in condition["conditions"] for leaf in _leaves(part)]


@pytest.mark.parametrize(
    "wanted",
    [
        {"field": "meta.a", "operator": "~", "value": 1},
        {"field": "", "operator": "==", "value": 1},
        {"field": "meta", "operator": "==", "value": 1},
        {"field": "blob", "operator": "==", "value": None},
        {"field": "meta.a", "operator": ">", "value": "abc"},
        {"field": "meta.a", "operator": ">", "value": {"a": 1}},
        {"field": "meta.a", "operator": "==", "value": object()},
        {"field": "meta.number", "operator": "==", "value": "one"},
        {"field": "content", "operator": "<", "value": 3},
        {"operator": "XOR", "conditions": []},
        {"operator": "AND", "conditions": ["a"]},
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_is_refused(wanted: dict[str, Any]) -> None:
    store = UpvecDocumentStore(embedding_dim=2, fields=[Field("number", "int64", nullable=True)])
    with pytest.raises(FilterError):
        store.filter_documents(wanted)


def test_dates_in_a_timestamp_field_are_filtered_by_its_index() -> None:
    at = Field("at", "timestamp", nullable=True, index=True)
    store = UpvecDocumentStore(embedding_dim=2, fields=[at])
    store.write_documents(
        [Document(id=day, meta={"at": f"2020-01-{day}T10:00:00"}) for day in ("01", "02", "03")]
        + [Document(id="none")]
    )
    wanted = {"field": "meta.at", "operator": ">=", "value": "2020-01-02T10:00:00"}
    assert [document.id for document in store.filter_documents(wanted)] == ["02", "03"]
    neither = {"operator": "NOT", "conditions": [wanted]}
    assert [document.id for document in store.filter_documents(neither)] == ["01", "none"]


# --- What the suites do not ask for --------------------------------------------------------------


def library() -> list[Document]:
    return [
        Document(id="x", content="x", meta={"year": 1990}, embedding=[1.0, 0.0]),
        Document(id="y", content="y", meta={"year": 2000}, embedding=[0.0, 3.0]),
        Document(id="-x", content="-x", meta={"year": 2010}, embedding=[-2.0, 0.0]),
        Document(id="none", content="without"),
    ]


def test_retrieval_gives_the_best_first_with_scores() -> None:
    scores = {
        "cosine": {"x": 1, "y": 0, "-x": -1},
        "ip": {"x": 1, "y": 0, "-x": -2},
        "l2": {"x": 0, "-x": -9, "y": -10},
    }
    for metric, wanted in scores.items():
        store = UpvecDocumentStore(embedding_dim=2, metric=metric)
        store.write_documents(library())
        found = store.embedding_retrieval([1.0, 0.0], top_k=9)
        assert [document.id for document in found] == list(wanted)
        got = [document.score for document in found]
        assert got == pytest.approx(list(wanted.values()), abs=1e-5)
        scaled = store.embedding_retrieval([1.0, 0.0], top_k=9, scale_score=True)
        assert [document.id for document in scaled] == list(wanted)
        assert all(0 <= (document.score or 0) <= 1 for document in scaled)


def test_the_retriever_filters_before_it_searches() -> None:
    store = UpvecDocumentStore(embedding_dim=2)
    store.write_documents(library())
    late = {"field": "meta.year", "operator": ">", "value": 1990}
    last = {"field": "meta.year", "operator": ">", "value": 2000}
    retriever = UpvecEmbeddingRetriever(store, filters=late, top_k=2)
    found = retriever.run([1.0, 0.0])["documents"]
    assert [document.id for document in found] == ["y", "-x"]
    assert found[0].embedding is None
    found = retriever.run([1.0, 0.0], filters=last, return_embedding=True)["documents"]
    assert [document.embedding for document in found] == [[-1.0, 0.0]]
    merging = UpvecEmbeddingRetriever(store, filters=late, filter_policy=FilterPolicy.MERGE)
    one = {"field": "content", "operator": "==", "value": "y"}
    both = {"operator": "AND", "conditions": [one]}
    ids = [document.id for document in merging.run([1.0, 0.0], filters=both)["documents"]]
    assert ids == ["y"]
    found = asyncio.run(retriever.run_async([1.0, 0.0], top_k=1))["documents"]
    assert [document.id for document in found] == ["y"]
    with pytest.raises(TypeError, match="wanted UpvecDocumentStore"):
        UpvecEmbeddingRetriever("store")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        UpvecEmbeddingRetriever(store, top_k=0)
    with pytest.raises(upvec.DimensionError):
        retriever.run([1.0])


def test_a_pipeline_is_the_same_when_it_was_written_down(tmp_path: Path) -> None:
    year = Field("year", "int64", nullable=True, index=True)
    store = UpvecDocumentStore(str(tmp_path / "documents"), embedding_dim=2, fields=[year])
    store.write_documents(library())
    late = {"field": "meta.year", "operator": ">", "value": 1990}
    pipeline = Pipeline()
    retriever = UpvecEmbeddingRetriever(store, filters=late, filter_policy=FilterPolicy.MERGE)
    pipeline.add_component("retriever", retriever)
    again = Pipeline.loads(pipeline.dumps(), **ALLOWED)
    assert again.to_dict() == pipeline.to_dict()
    # Both are in use at once: one process shares the handle of a path.
    for one in (pipeline, again):
        found = one.run({"retriever": {"query_embedding": [1.0, 0.0]}})["retriever"]["documents"]
        assert [document.id for document in found] == ["y", "-x"]
    store.write_documents([Document(id="new", meta={"year": 2020}, embedding=[1.0, 0.1])])
    found = again.run({"retriever": {"query_embedding": [1.0, 0.0]}})["retriever"]["documents"]
    assert found[0].id == "new"
    other = again.get_component("retriever").document_store
    store.close()
    assert other.count_documents() == 5
    other.close()
    assert other.collection.closed


def test_a_store_that_was_given_a_collection_is_not_written_down() -> None:
    schema = Schema(
        Field("id", "string", primary=True), Field("content", "string"), Vector("emb", 2)
    )
    with upvec.open(":memory:", schema) as collection:
        store = UpvecDocumentStore(collection=collection)
        with pytest.raises(ValueError, match="give a path"):
            store.to_dict()
        with pytest.raises(ValueError, match="a blob, for which the collection has no field"):
            store.write_documents([Document(content="a", blob=ByteStream(b"b"))])
        store.close()
        assert not collection.closed


def test_a_document_comes_back_whole() -> None:
    store = UpvecDocumentStore(embedding_dim=2, fields=[Field("a", "int64", nullable=True)])
    documents = [
        Document(content="", meta={"a": None, "b": [1, {"c": None}], "id": 3, "text": "x"}),
        Document(content="x", meta={"a": 1, "metadata": {"content": 1}}, embedding=[0.0, 1.0]),
        Document(blob=ByteStream(b"\0\1", meta={"k": 1}, mime_type="image/png"), meta={}),
        Document(content="s", sparse_embedding=SparseEmbedding(indices=[1, 5], values=[0.5, 1.0])),
    ]
    store.write_documents(documents)
    assert store.filter_documents() == documents
    without = UpvecDocumentStore(embedding_dim=2, return_embedding=False)
    without.write_documents(documents[1:2])
    assert without.filter_documents()[0].embedding is None


def test_duplicates_in_one_call_follow_the_policy() -> None:
    first, last = Document(id="a", content="first"), Document(id="a", content="last")
    store = UpvecDocumentStore(embedding_dim=2)
    for policy in (DuplicatePolicy.FAIL, DuplicatePolicy.NONE):
        with pytest.raises(DuplicateDocumentError):
            store.write_documents([first, Document(id="b"), last], policy)
        assert store.count_documents() == 0
    assert store.write_documents([first, last], DuplicatePolicy.SKIP) == 1
    assert store.filter_documents()[0].content == "first"
    assert store.write_documents([first, last], DuplicatePolicy.OVERWRITE) == 2
    assert store.filter_documents()[0].content == "last"
    assert store.write_documents([]) == 0


def test_writing_over_a_document_leaves_nothing_of_it() -> None:
    store = UpvecDocumentStore(embedding_dim=2)
    store.write_documents([Document(id="a", content="x", meta={"k": 1}, embedding=[0.0, 1.0])])
    new = Document(id="a", meta={"l": 2})
    store.write_documents([new], DuplicatePolicy.OVERWRITE)
    assert store.filter_documents() == [new]
    assert store.embedding_retrieval([0.0, 1.0]) == []


def test_every_call_that_writes_is_one_commit() -> None:
    store = UpvecDocumentStore(embedding_dim=2)
    store.write_documents(library())
    everything = {"field": "id", "operator": "!=", "value": ""}
    assert store.update_by_filter(everything, {"seen": True, "year": None}) == 4
    assert store.delete_by_filter({"field": "content", "operator": "==", "value": "y"}) == 1
    store.delete_all_documents()
    assert store.collection.seq == 4


def test_what_was_made_before_must_agree(tmp_path: Path) -> None:
    path = str(tmp_path / "documents")
    first = UpvecDocumentStore(path, embedding_dim=2)
    for options in (
        {"embedding_dim": 3},
        {"embedding_dim": 2, "metric": "l2"},
        {"embedding_dim": 2, "fields": [Field("a", "int64", nullable=True)]},
    ):
        with pytest.raises(upvec.SchemaError):
            UpvecDocumentStore(path, **options)  # type: ignore[arg-type]
    assert first.count_documents() == 0
    first.close()
