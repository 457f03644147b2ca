"""Records beside documents: LangChain's list of behaviours, its indexing, and a killed process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import upvec
from upvec import Field, Schema, Vector

pytest.importorskip("langchain_core", reason="needs pip install 'upvec[langchain]'")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import aindex, index

from upvec.integrations.langchain import UpvecDocumentIndex, UpvecRecordManager, UpvecVectorStore


class Counted(DeterministicFakeEmbedding):
    """Counts the texts that it was asked for."""

    asked: int = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += len(texts)
        return super().embed_documents(texts)


def day(year: int, month: int, number: int) -> float:
    return datetime(year, month, number, tzinfo=timezone.utc).timestamp()


@pytest.fixture
def store() -> UpvecVectorStore:
    return UpvecVectorStore(Counted(size=8), source_id_key="source")


@pytest.fixture
def manager(store: UpvecVectorStore) -> UpvecRecordManager:
    return UpvecRecordManager(store, "kittens")


def add(store: UpvecVectorStore, *keys: str) -> None:
    """Store documents, without a record of them."""
    store.add_texts(list(keys), ids=list(keys))
    UpvecRecordManager(store).delete_keys(keys)


# --- What LangChain's tests of record managers ask for -------------------------------------------


def test_update_records_documents(store: UpvecVectorStore, manager: UpvecRecordManager) -> None:
    assert manager.list_keys() == []
    add(store, "key1", "key2", "key3")
    assert manager.list_keys() == []
    manager.update(["key1", "key2", "key3"])
    assert manager.list_keys() == ["key1", "key2", "key3"]


def test_update_sets_the_time(store: UpvecVectorStore, manager: UpvecRecordManager) -> None:
    add(store, "key1")
    with patch.object(manager, "get_time", return_value=day(2021, 1, 2)):
        manager.update(["key1"])
    assert manager.list_keys() == ["key1"]
    assert manager.list_keys(before=day(2021, 1, 1)) == []
    assert manager.list_keys(after=day(2021, 1, 1)) == ["key1"]
    assert manager.list_keys(after=day(2021, 1, 3)) == []
    with patch.object(manager, "get_time", return_value=day(2023, 1, 5)):
        manager.update(["key1"])
    assert manager.list_keys(before=day(2023, 1, 1)) == []
    assert manager.list_keys(after=day(2023, 1, 3)) == ["key1"]


def test_all_keys_of_an_update_get_the_same_time(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    add(store, "key1", "key2", "key3")
    times = iter([day(2021, 1, 1), day(2021, 1, 2), day(2021, 1, 3)])
    with patch.object(manager, "get_time", side_effect=lambda: next(times)):
        manager.update(["key1", "key2", "key3"])
    assert len(manager.list_keys(before=day(2021, 1, 1) + 1, after=day(2021, 1, 1) - 1)) == 3


def test_exists_tells_what_is_recorded(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    assert manager.exists(["key1"]) == [False]
    add(store, "key1", "key2", "key3", "unrecorded")
    manager.update(["key1", "key2", "key3"])
    assert manager.exists(["key1", "key2", "key3"]) == [True, True, True]
    assert manager.exists(["key1", "key4", "unrecorded"]) == [True, False, False]
    assert manager.exists([]) == []


def test_keys_are_listed_by_time_and_group(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    add(store, "key1", "key2", "key3", "key4", "key5")
    with patch.object(manager, "get_time", return_value=day(2021, 1, 2)):
        manager.update(["key1", "key2"])
        manager.update(["key3"], group_ids=["group1"])
        manager.update(["key4"], group_ids=["group2"])
    with patch.object(manager, "get_time", return_value=day(2021, 1, 10)):
        manager.update(["key5"])
    everything = ["key1", "key2", "key3", "key4", "key5"]
    for listed in (manager.list_keys, lambda **by: asyncio.run(manager.alist_keys(**by))):
        assert sorted(listed()) == everything
        assert listed(group_ids=["group1"]) == ["key3"]
        assert sorted(listed(group_ids=["group1", "group2"])) == ["key3", "key4"]
        assert sorted(listed(before=day(2021, 1, 3))) == everything[:4]
        assert listed(after=day(2021, 1, 3)) == ["key5"]
        assert len(listed(limit=1)) == 1
        assert listed(limit=0) == []


def test_delete_keys_forgets_records_and_keeps_documents(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    add(store, "key1", "key2", "key3")
    manager.update(["key1", "key2", "key3"])
    manager.delete_keys(["key1", "key2", "never there"])
    assert manager.list_keys() == ["key3"]
    assert [one.id for one in store.get_by_ids(["key1", "key3"])] == ["key1", "key3"]


def test_the_awaitable_methods_do_the_same(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    async def run() -> None:
        await manager.acreate_schema()
        add(store, "key1", "key2", "key3")
        start = await manager.aget_time()
        await manager.aupdate(["key1", "key2", "key3"], group_ids=["g", None, "g"])
        assert await manager.alist_keys(after=start) == ["key1", "key2", "key3"]
        assert await manager.aexists(["key1", "key4"]) == [True, False]
        await manager.adelete_keys(["key1", "key2"])
        assert await manager.alist_keys(group_ids=["g"]) == ["key3"]

    asyncio.run(run())


# --- What is ours --------------------------------------------------------------------------------


def test_what_cannot_be_recorded_is_refused(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    with pytest.raises(upvec.KeyMissingError, match="'key1'"):
        manager.update(["key1"])
    add(store, "key1")
    with pytest.raises(upvec.KeyMissingError) as missing:
        manager.update(["key1", "key2"])
    assert missing.value.keys == ("key2",)
    assert manager.list_keys() == []
    with pytest.raises(ValueError, match="2 group_ids for 1 keys"):
        manager.update(["key1"], group_ids=["a", "b"])
    with pytest.raises(ValueError, match="in the future"):
        manager.update(["key1"], time_at_least=manager.get_time() + 1e6)


def test_a_document_is_stored_with_its_record_in_one_commit(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    start = manager.get_time()
    store.add_documents([Document("text", id="a", metadata={"source": "page"})])
    assert store.collection is not None
    assert store.collection.seq == 1
    assert manager.list_keys(after=start, group_ids=["page"]) == ["a"]


def test_documents_that_are_added_without_a_manager_are_not_cleaned_up(tmp_path: Path) -> None:
    by_hand = UpvecVectorStore(Counted(size=8), tmp_path / "documents")
    by_hand.add_texts(["by hand"], ids=["hand"])
    store = UpvecVectorStore(Counted(size=8), tmp_path / "documents", source_id_key="source")
    manager = UpvecRecordManager(store)
    assert run_index(pages("a"), store, manager) == counts(1, 0, 0)
    assert run_index(pages("b"), store, manager) == counts(1, 0, 1)
    assert manager.exists(["hand"]) == [False]
    assert [one.id for one in by_hand.get_by_ids(["hand"])] == ["hand"]
    # Written again by hand, a recorded document keeps its record.
    (key,) = manager.list_keys()
    by_hand.add_texts(["B"], ids=[key])
    assert manager.list_keys(group_ids=["page"]) == [key]
    by_hand.close()
    store.close()


def test_an_update_without_groups_keeps_them(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    store.add_documents([Document("text", id="a", metadata={"source": "page"})])
    manager.update(["a"])
    assert manager.list_keys(group_ids=["page"]) == ["a"]
    manager.update(["a"], group_ids=[None])
    assert manager.list_keys(group_ids=["page"]) == []


def test_the_clock_goes_on_when_that_of_the_computer_goes_back(tmp_path: Path) -> None:
    first = UpvecVectorStore(Counted(size=8), tmp_path / "documents")
    UpvecRecordManager(first)
    with patch("time.time", return_value=day(2100, 1, 1)):
        first.add_texts(["a"], ids=["a"])
    times = [first.clock.now_s() for _ in range(1000)]
    assert times == sorted(set(times))
    first.close()
    again = UpvecVectorStore(Counted(size=8), tmp_path / "documents")
    manager = UpvecRecordManager(again)
    assert manager.get_time() > day(2100, 1, 1)
    assert manager.list_keys(before=manager.get_time()) == ["a"]
    again.close()


def test_create_schema_adds_records_to_a_collection_without() -> None:
    schema = Schema(Field("id", "string", primary=True), Field("text", "string"), Vector("emb", 8))
    with upvec.open(":memory:", schema) as collection:
        store = UpvecVectorStore(Counted(size=8), collection=collection)
        manager = UpvecRecordManager(store)
        store.add_texts(["a"], ids=["a"])
        with pytest.raises(upvec.SchemaError, match="create_schema"):
            manager.exists(["a"])
        manager.create_schema()
        manager.create_schema()
        assert manager.exists(["a"]) == [False]
        store.add_texts(["a"], ids=["a"])
        assert manager.exists(["a"]) == [True]
        assert store.get_by_ids(["a"])[0].metadata == {}


# --- Indexing ------------------------------------------------------------------------------------


def pages(*texts: str, source: str = "page") -> list[Document]:
    return [Document(text, metadata={"source": source}) for text in texts]


def run_index(documents: list[Document], store: Any, manager: UpvecRecordManager, **by: Any) -> Any:
    given: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    return index(documents, manager, store, **(given | by))


def counts(added: int, skipped: int, deleted: int, updated: int = 0) -> dict[str, int]:
    return {
        "num_added": added, "num_updated": updated, "num_skipped": skipped, "num_deleted": deleted,
    }  # fmt: skip


def test_unchanged_documents_are_skipped_and_not_embedded(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    embedding: Any = store.embeddings
    assert run_index(pages("a", "b", "c"), store, manager) == counts(3, 0, 0)
    assert run_index(pages("a", "b", "c"), store, manager) == counts(0, 3, 0)
    assert embedding.asked == 3
    assert run_index(pages("a", "B", "c"), store, manager) == counts(1, 2, 1)
    assert embedding.asked == 4
    assert sorted(one.page_content for one in store.similarity_search("a", k=9)) == ["B", "a", "c"]
    assert run_index(pages("a"), store, manager, force_update=True) == counts(0, 0, 2, updated=1)
    assert run_index([], store, manager) == counts(0, 0, 1)


def test_incremental_cleanup_removes_what_a_source_no_longer_has(
    store: UpvecVectorStore, manager: UpvecRecordManager
) -> None:
    both = pages("a", "b", source="1") + pages("c", "d", source="2")
    assert run_index(both, store, manager, cleanup="incremental") == counts(4, 0, 0)
    fewer = pages("a", source="1")
    assert run_index(fewer, store, manager, cleanup="incremental") == counts(0, 1, 1)
    other = pages("e", source="2")
    assert run_index(other, store, manager, cleanup="scoped_full") == counts(1, 0, 2)
    assert sorted(one.page_content for one in store.similarity_search("a", k=9)) == ["a", "e"]


def test_aindex_does_the_same(store: UpvecVectorStore, manager: UpvecRecordManager) -> None:
    async def run(*texts: str) -> Any:
        return await aindex(
            pages(*texts),
            manager,
            store,
            cleanup="incremental",
            source_id_key="source",
            key_encoder="sha256",
        )

    assert asyncio.run(run("a", "b")) == counts(2, 0, 0)
    assert asyncio.run(run("b", "c")) == counts(1, 1, 1)


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_a_document_index_is_indexed_into_as_well(store: UpvecVectorStore) -> None:
    into = UpvecDocumentIndex(store=store)
    manager = UpvecRecordManager(into)
    assert run_index(pages("a", "b"), into, manager) == counts(2, 0, 0)
    assert run_index(pages("b"), into, manager) == counts(0, 1, 1)


INDEXER = """
import sys
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import index
from upvec.integrations.langchain import UpvecRecordManager, UpvecVectorStore

store = UpvecVectorStore(DeterministicFakeEmbedding(size=8), sys.argv[1], source_id_key="source")
for version in range(10**9):
    pages = [
        Document(f"{page} of version {version}", metadata={"source": str(page)})
        for page in range(40)
    ]
    index(pages, UpvecRecordManager(store), store, cleanup="incremental", source_id_key="source",
          key_encoder="sha256", batch_size=10)
    print(version, flush=True)
"""


def test_a_killed_indexer_leaves_neither_documents_nor_records_alone(tmp_path: Path) -> None:
    path = tmp_path / "documents"
    script = tmp_path / "indexer.py"
    script.write_text(textwrap.dedent(INDEXER))
    where = str(Path(upvec.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": where}
    for round_ in range(4):
        with subprocess.Popen(
            [sys.executable, str(script), str(path)], stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1 + 0.13 * round_)
            process.kill()
        store = UpvecVectorStore(DeterministicFakeEmbedding(size=8), path, source_id_key="source")
        assert store.collection is not None
        stored = {row["id"]: row for rows in store.collection.scan() for row in rows}
        assert stored
        for row in stored.values():
            assert row["embedding"] is not None
            assert row["indexed_at_s"] is not None
            assert row["source_id"] == row["metadata"]["source"]
        # So another run finds every one of them, and removes what is out of date.
        now = pages_of_all()
        manager = UpvecRecordManager(store)
        run_index(now, store, manager, cleanup="incremental")
        assert len(store.collection) == len(now)
        assert sorted(manager.list_keys()) == sorted(
            key for rows in store.collection.scan() for key in rows["id"].tolist()
        )
        store.close()


def pages_of_all() -> list[Document]:
    return [Document(f"{page} at last", metadata={"source": str(page)}) for page in range(40)]
