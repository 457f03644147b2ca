"""LlamaIndex over a collection: what its own stores are tested for, and what they are not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import upvec
from upvec import Field, Schema, Vector

pytest.importorskip("llama_index.core", reason="needs pip install 'upvec[llama-index]'")

from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from upvec.integrations.llama_index import UpvecLlamaVectorStore


def nodes() -> list[BaseNode]:
    metadata = {
        "a": {"weight": 1.0, "rank": "x", "quality": ["medium", "high"], "code": "6FTR-Yun"},
        "b": {"weight": 2.0, "rank": "y", "quality": ["medium"], "code": "6FTR-Ygl"},
        "c": {"weight": 3.0, "rank": "y", "quality": ["low", "medium", "high"], "code": "6FTR-Ztl"},
    }
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 1.0]}
    return [
        TextNode(
            id_=key,
            text=f"text of {key}",
            embedding=vectors[key],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document of {key}")},
            metadata=metadata[key],
        )
        for key in "abc"
    ]


@pytest.fixture
def store() -> UpvecLlamaVectorStore:
    filled = UpvecLlamaVectorStore()
    assert filled.add(nodes()) == ["a", "b", "c"]
    return filled


def one(key: str, operator: FilterOperator, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


def ids(store: Any, filters: MetadataFilters | None = None, **query: Any) -> list[str]:
    given_: dict[str, Any] = {"query_embedding": [1.0, 1.0], "similarity_top_k": 3}
    result = store.query(VectorStoreQuery(**(given_ | query), filters=filters))
    assert result.ids is not None
    return list(result.ids)


# --- What LlamaIndex tests its own store for -----------------------------------------------------


def test_a_query_gives_the_most_similar_first(store: UpvecLlamaVectorStore) -> None:
    found = store.query(VectorStoreQuery(query_embedding=[1.0, 0.9], similarity_top_k=3))
    assert found.ids == ["c", "a", "b"]
    assert found.similarities == pytest.approx([0.9986, 0.7433, 0.6690], abs=1e-4)
    assert found.nodes is not None
    assert [node.node_id for node in found.nodes] == found.ids
    assert ids(store, similarity_top_k=1) == ["c"]


EQ, NE, GT, GTE, LT, LTE = (FilterOperator(symbol) for symbol in ("==", "!=", ">", ">=", "<", "<="))
CASES: list[tuple[str, FilterOperator, Any, str]] = [
    ("rank", EQ, "y", "bc"),
    ("weight", EQ, 1.0, "a"),
    ("weight", EQ, 1, "a"),
    ("unknown", EQ, "c", ""),
    ("weight", NE, 1.0, "bc"),
    ("unknown", NE, "c", "abc"),
    ("weight", GT, 1.5, "bc"),
    ("weight", GTE, 1.0, "abc"),
    ("weight", LT, 1.1, "a"),
    ("weight", LTE, 1.0, "a"),
    ("weight", GT, "1", ""),
    ("rank", FilterOperator.IN, ["x", "y"], "abc"),
    ("rank", FilterOperator.NIN, ["y"], "a"),
    ("unknown", FilterOperator.NIN, ["y"], "abc"),
    ("quality", FilterOperator.CONTAINS, "high", "ac"),
    ("code", FilterOperator.TEXT_MATCH, "6FTR-Y", "ab"),
    ("code", FilterOperator.TEXT_MATCH, "6ftr-Y", ""),
    ("code", FilterOperator.TEXT_MATCH_INSENSITIVE, "6ftr-y", "ab"),
    ("quality", FilterOperator.ANY, ["high", "low"], "ac"),
    ("quality", FilterOperator.ALL, ["medium", "high"], "ac"),
    ("unknown", FilterOperator.IS_EMPTY, None, "abc"),
    ("rank", FilterOperator.IS_EMPTY, None, ""),
    ("ref_doc_id", EQ, "document of b", "b"),
    ("doc_id", FilterOperator.IN, ["document of b", "document of c"], "bc"),
]


@pytest.mark.parametrize(("key", "operator", "value", "wanted"), CASES)
def test_an_operator_chooses(
    store: UpvecLlamaVectorStore, key: str, operator: FilterOperator, value: Any, wanted: str
) -> None:
    assert "".join(sorted(ids(store, one(key, operator, value)))) == wanted


def test_conditions_join_and_nest(store: UpvecLlamaVectorStore) -> None:
    heavy, light = one("weight", GT, 1.5), one("weight", LT, 1.5)
    y = one("rank", EQ, "y")
    both = [heavy.filters[0], y.filters[0]]
    assert ids(store, MetadataFilters(filters=both)) == ["c", "b"]
    either = MetadataFilters(filters=[light.filters[0], *both], condition=FilterCondition.OR)
    assert sorted(ids(store, either)) == ["a", "b", "c"]
    neither = MetadataFilters(filters=both, condition=FilterCondition.NOT)
    assert ids(store, neither) == ["a"]
    nested = MetadataFilters(
        filters=[MetadataFilters(filters=[light, heavy], condition=FilterCondition.OR), y]
    )
    assert ids(store, nested) == ["c", "b"]
    assert ids(store, MetadataFilters(filters=[nested], condition=FilterCondition.NOT)) == ["a"]
    assert sorted(ids(store, MetadataFilters(filters=[]))) == ["a", "b", "c"]
    contradiction = MetadataFilters(filters=[light, heavy])
    assert ids(store, contradiction) == []


def test_ids_of_nodes_and_documents_narrow_a_query(store: UpvecLlamaVectorStore) -> None:
    y = one("rank", EQ, "y")
    assert ids(store, y, node_ids=["c", "a"]) == ["c"]
    assert ids(store, doc_ids=["document of a", "document of b"], similarity_top_k=9) == ["a", "b"]
    assert ids(store, y, doc_ids=["document of a"]) == []
    assert len(ids(store, node_ids=[], doc_ids=[])) == 3  # as a retriever asks


def test_deleting_takes_nodes_out_of_queries(store: UpvecLlamaVectorStore) -> None:
    store.delete("document of b")
    assert ids(store) == ["c", "a"]
    store.delete("never there")
    store.delete_nodes(["a", "never there"])
    assert ids(store) == ["c"]
    store.delete_nodes(filters=one("rank", EQ, "x"))
    assert ids(store) == ["c"]
    store.delete_nodes(["c"], one("rank", EQ, "x"))
    assert ids(store) == ["c"]
    store.delete_nodes(["c"], one("rank", EQ, "y"))
    assert ids(store) == []
    with pytest.raises(ValueError, match="got neither"):
        store.delete_nodes()


def test_clear_removes_all_nodes(store: UpvecLlamaVectorStore) -> None:
    store.clear()
    assert ids(store) == []
    assert store.get_nodes() == []


# --- Filters against LlamaIndex's own ------------------------------------------------------------

KEYS = ["a", "b", "a.b", "nothing"]
values = st.sampled_from(
    ["", "a", "ab", "AB", 0, 1, 2, 2.0, 0.5, None, ["a"], ["ab", "a"], [], [1, 2], [0.5]]
)
metadatas = st.dictionaries(st.sampled_from(KEYS[:3]), values | st.booleans())
plain = st.builds(
    MetadataFilter,
    key=st.sampled_from(KEYS),
    operator=st.sampled_from([EQ, NE, GT, GTE, LT, LTE, FilterOperator.CONTAINS]),
    value=st.sampled_from(["", "a", "ab", 0, 1, 2, 2.0, 0.5, None]),
)
listed = st.builds(
    MetadataFilter,
    key=st.sampled_from(KEYS),
    operator=st.sampled_from(
        [FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL]
    ),
    value=st.sampled_from([["a"], ["ab", "a"], [], [1, 2], [0.5]]),
)
texts = st.builds(
    MetadataFilter,
    key=st.sampled_from(KEYS),
    operator=st.sampled_from([FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE]),
    value=st.sampled_from(["", "a", "b", "B"]),
)
empty = st.builds(
    MetadataFilter,
    key=st.sampled_from(KEYS),
    operator=st.just(FilterOperator.IS_EMPTY),
    value=st.none(),
)
wanted_filters = st.builds(
    MetadataFilters,
    filters=st.lists(plain | listed | texts | empty, max_size=3),
    condition=st.sampled_from(list(FilterCondition)),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(metadatas, max_size=6), st.lists(wanted_filters, min_size=1, max_size=5))
def test_filters_mean_what_llama_index_says(
    stored: list[dict[str, Any]], asked: list[MetadataFilters]
) -> None:
    filled = UpvecLlamaVectorStore()
    by_id = {str(row): metadata for row, metadata in enumerate(stored)}
    filled.add(
        [
            TextNode(id_=key, text="", embedding=[1.0, 2.0], metadata=metadata)
            for key, metadata in by_id.items()
        ]
    )
    for filters in asked:
        matches = build_metadata_filter_fn(by_id.__getitem__, filters)
        found = {node.node_id for node in filled.get_nodes(filters=filters)}
        for key, metadata in by_id.items():
            try:
                said = matches(key)
            except TypeError:  # it refuses to compare some kinds; to us they are not alike
                continue
            assert said == (key in found), (filters, metadata)


# --- What is ours --------------------------------------------------------------------------------


def test_nodes_come_back_whole(store: UpvecLlamaVectorStore) -> None:
    others: list[BaseNode] = [
        IndexNode(id_="i", text="index", index_id="9", embedding=[3.0, 4.0]),
        ImageNode(id_="m", text="", image_url="http://x/y.png", embedding=[0.0, 1.0]),
        TextNode(
            id_="t", text="x", embedding=[1.0, 0.0], metadata={"deep": {"er": [1, None]}},
            excluded_llm_metadata_keys=["deep"], start_char_idx=3, text_template="{content}",
            relationships={NodeRelationship.PREVIOUS: RelatedNodeInfo(node_id="i")},
        ),
    ]  # fmt: skip
    store.add(others)
    read = store.get_nodes(["m", "t", "i", "never there"])
    expected = [others[1], others[2], others[0].model_copy()]
    expected[2].embedding = [0.6, 0.8]  # of unit length
    for got, want in zip(read, expected, strict=True):
        assert type(got) is type(want)
        assert got.embedding == pytest.approx(want.embedding)
        assert got.to_dict() | {"embedding": 0} == want.to_dict() | {"embedding": 0}
    assert [node.node_id for node in store.get_nodes(["c", "a"], one("rank", EQ, "y"))] == ["c"]
    assert len(store.get_nodes()) == 6


def test_a_node_that_comes_again_takes_the_place_of_the_stored_one(
    store: UpvecLlamaVectorStore,
) -> None:
    store.add([TextNode(id_="a", text="new", embedding=[0.0, 1.0], metadata={"k": 1})])
    read = store.get_nodes(["a"])[0]
    assert (read.get_content(), read.metadata, read.ref_doc_id) == ("new", {"k": 1}, None)
    assert store.collection is not None
    assert store.collection.seq == 2


def test_metadata_with_fields_of_their_own_are_filtered_the_same_way() -> None:
    fields = [
        Field("weight", "float64", nullable=True, index=True),
        Field("rank", "string", nullable=True, index=True),
        Field("quality", "list<string>", nullable=True, index=True),
    ]
    filled = UpvecLlamaVectorStore(fields=fields)
    filled.add(nodes())
    for key, operator, value, wanted in CASES:
        if (key, value) != ("weight", "1"):
            assert "".join(sorted(ids(filled, one(key, operator, value)))) == wanted
    with pytest.raises(upvec.ExpressionError):
        ids(filled, one("weight", GT, "1"))
    with pytest.raises(upvec.ExpressionError, match="is_empty"):
        ids(filled, one("quality", FilterOperator.IS_EMPTY, None))
    assert filled.get_nodes()[0].metadata == nodes()[0].metadata


def test_marginal_relevance_prefers_what_is_unlike(store: UpvecLlamaVectorStore) -> None:
    vectors = {"1": [1.0, 0.0], "2": [1.0, 0.01], "3": [0.7, 0.7], "4": [0.0, 1.0]}
    filled = UpvecLlamaVectorStore()
    filled.add([TextNode(id_=key, text="", embedding=of) for key, of in vectors.items()])
    query = {"query_embedding": [1.0, 0.0], "similarity_top_k": 2}
    assert ids(filled, **query) == ["1", "2"]
    mmr = VectorStoreQuery(**query, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)  # type: ignore[arg-type]
    assert filled.query(mmr).ids == ["1", "4"]
    assert filled.query(mmr, mmr_threshold=1.0).ids == ["1", "2"]
    assert filled.query(mmr, mmr_prefetch_k=3).ids == ["1", "3"]
    assert filled.query(mmr, mmr_prefetch_factor=1.5).ids == ["1", "3"]
    with pytest.raises(ValueError, match="one of the two"):
        filled.query(mmr, mmr_prefetch_k=3, mmr_prefetch_factor=2)
    for mode in (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SVM):
        with pytest.raises(ValueError, match="wanted 'default' or 'mmr'"):
            ids(filled, mode=mode)
    with pytest.raises(ValueError, match="wanted a vector"):
        filled.query(VectorStoreQuery())


@pytest.mark.parametrize(
    ("operator", "value"),
    [(FilterOperator.IN, "a"), (FilterOperator.ANY, None), (FilterOperator.TEXT_MATCH, 3)],
)
def test_a_filter_that_cannot_be_is_refused(
    store: UpvecLlamaVectorStore, operator: FilterOperator, value: Any
) -> None:
    with pytest.raises(upvec.ExpressionError, match="'rank'"):
        ids(store, one("rank", operator, value))


def test_a_store_that_has_no_nodes_yet_gives_none() -> None:
    empty_store = UpvecLlamaVectorStore()
    assert ids(empty_store) == []
    assert empty_store.get_nodes(["a"]) == []
    empty_store.delete("a")
    empty_store.delete_nodes(["a"])
    empty_store.clear()
    assert empty_store.add([]) == []
    with pytest.raises(ValueError, match="embedding"):
        empty_store.add([TextNode(text="a")])


def test_a_collection_that_others_fill_is_read_as_nodes() -> None:
    schema = Schema(
        Field("isbn", "string", primary=True),
        Field("blurb", "string"),
        Field("year", "int64", index=True),
        Vector("emb", 2),
    )
    with upvec.open(":memory:", schema) as collection:
        collection.upsert([{"isbn": "1", "blurb": "about", "year": 1999, "emb": [1, 0]}])
        books = UpvecLlamaVectorStore(collection=collection, text_field="blurb")
        found = books.query(
            VectorStoreQuery(query_embedding=[1.0, 0.0], filters=one("year", EQ, 1999))
        )
        assert found.nodes is not None
        assert found.nodes[0].get_content() == "about"
        assert found.nodes[0].metadata == {"year": 1999}
        assert found.similarities == [1.0]
        with pytest.raises(upvec.SchemaError, match="ref_doc_id"):
            books.delete("document")
        with pytest.raises(upvec.SchemaError, match="unknown metadatum 'month'"):
            ids(books, one("month", EQ, 1), query_embedding=[1.0, 0.0])


def test_the_awaitable_methods_do_the_same(store: UpvecLlamaVectorStore) -> None:
    async def run() -> None:
        await store.async_add([TextNode(id_="d", text="d", embedding=[1.0, 0.2])])
        result = await store.aquery(VectorStoreQuery([1.0, 0.2], similarity_top_k=1))
        assert result.ids == ["d"]
        assert len(await store.aget_nodes(["d", "a"])) == 2
        await store.adelete("document of a")
        await store.adelete_nodes(["d"])
        assert sorted(node.node_id for node in await store.aget_nodes()) == ["b", "c"]
        await store.aclear()
        assert await store.aget_nodes() == []

    asyncio.run(run())


def test_an_index_is_built_persisted_and_opened_again(tmp_path: Path) -> None:
    model = MockEmbedding(embed_dim=4)
    documents = [Document(text=f"text {key}", id_=key, metadata={"k": key}) for key in "ab"]
    for path in (None, tmp_path / "live"):
        directory = str(tmp_path / f"persisted from {path is None}")
        vectors = UpvecLlamaVectorStore(path)
        context = StorageContext.from_defaults(vector_store=vectors)
        index = VectorStoreIndex.from_documents(
            documents, storage_context=context, embed_model=model
        )
        context.persist(directory)
        index.delete_ref_doc("a")
        context.persist(directory)
        again = UpvecLlamaVectorStore.from_persist_dir(directory)
        assert [node.metadata["k"] for node in again.get_nodes()] == ["b"]
        reopened = VectorStoreIndex.from_vector_store(again, embed_model=model)
        assert [found.text for found in reopened.as_retriever().retrieve("x")] == ["text b"]
        again.close()
        vectors.clear()
        vectors.close()
    with pytest.raises(ValueError, match="no collection"):
        UpvecLlamaVectorStore.from_persist_path(str(tmp_path / "nowhere"))


def test_persisting_at_its_own_path_is_a_checkpoint(tmp_path: Path) -> None:
    first = UpvecLlamaVectorStore(tmp_path / "live")
    first.add(nodes())
    first.persist(str(tmp_path / "live"))
    assert any(entry.name.startswith("checkpoint-") for entry in (tmp_path / "live").iterdir())
    second = UpvecLlamaVectorStore(tmp_path / "live")
    assert second.collection is first.collection
    first.close()
    assert len(second.get_nodes()) == 3
    second.close()
    with pytest.raises(upvec.ClosedError):
        second.get_nodes()
    memory = UpvecLlamaVectorStore()
    memory.add(nodes())
    memory.persist(str(tmp_path / "written"))
    memory.clear()
    memory.persist(str(tmp_path / "written"))
    with upvec.open(tmp_path / "written") as written:
        assert len(written) == 0

    class Elsewhere:
        protocol = ("s3", "s3a")

    with pytest.raises(upvec.NotSupportedError):
        memory.persist("bucket/x", Elsewhere())


def test_queries_agree_with_those_of_the_simple_store(store: UpvecLlamaVectorStore) -> None:
    simple = SimpleVectorStore()
    simple.add(nodes())
    query = VectorStoreQuery(query_embedding=[0.3, 0.7], similarity_top_k=3)
    ours, theirs = store.query(query), simple.query(query)
    assert ours.ids == theirs.ids
    assert ours.similarities == pytest.approx(theirs.similarities, abs=1e-6)


def test_an_argument_that_is_not_known_is_refused() -> None:
    with pytest.raises(TypeError, match="metrics"):
        UpvecLlamaVectorStore(metrics="l2")
