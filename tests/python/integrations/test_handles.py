"""Handles of paths that a process shares, and the stores that share them."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

import upvec
from upvec import Field, Schema, Vector
from upvec.integrations.documents import Documents
from upvec.integrations.handles import borrow, give_back, is_stored

SCHEMA = Schema(Field("id", "string", primary=True), Field("text", "string"), Vector("emb", 2))


def write(documents: Documents, *ids: str) -> None:
    documents.ready(2)
    documents.write(ids, ids, [{} for _ in ids], np.ones((len(ids), 2)))


def test_a_handle_is_closed_by_the_last_that_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "collection"
    assert not is_stored(str(path))
    first = borrow(str(path), SCHEMA)
    second = borrow(str(tmp_path / "." / "collection"))
    assert first is second
    assert is_stored(str(path))
    give_back(first)
    assert not second.closed
    give_back(second)
    assert second.closed
    third = borrow(str(path))
    assert third is not first
    give_back(third)


def test_a_handle_that_is_being_closed_is_lent_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, go_on = threading.Event(), threading.Event()
    close = upvec.Collection.close

    def slowly(self: upvec.Collection) -> None:
        closing.set()
        go_on.wait(0.3)  # as long as writing a checkpoint may take
        close(self)

    path = str(tmp_path / "collection")
    first = borrow(path, SCHEMA)
    with monkeypatch.context() as patch:
        patch.setattr(upvec.Collection, "close", slowly)
        thread = threading.Thread(target=give_back, args=(first,))
        thread.start()
        assert closing.wait(20)
        second = borrow(path)
        thread.join()
    assert not second.closed
    assert len(second) == 0
    give_back(second)


def test_a_handle_that_its_borrowers_forgot_lets_go(tmp_path: Path) -> None:
    documents = Documents(tmp_path / "collection", dim=2)
    del documents
    gc.collect()
    with upvec.open(tmp_path / "collection") as collection:
        assert len(collection) == 0


def test_memory_is_shared_by_nobody() -> None:
    first, second = Documents(dim=2), Documents(dim=2)
    write(first, "a")
    assert (first.count(), second.count()) == (1, 0)
    first.close()
    assert second.count() == 0
    assert first.opened.closed


def test_a_store_sees_a_collection_that_another_has_made(tmp_path: Path) -> None:
    first, second = Documents(tmp_path / "collection"), Documents(tmp_path / "collection")
    assert second.collection is None
    with pytest.raises(upvec.SchemaError, match="no collection yet"):
        _ = second.opened
    write(first, "a")
    assert second.count() == 1
    second.close()
    write(first, "b")
    first.close()
    assert first.opened.closed


def test_a_collection_that_does_not_fit_is_given_back(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "collection", SCHEMA):
        pass
    with pytest.raises(upvec.SchemaError, match="no string field 'content'"):
        Documents(tmp_path / "collection", text_field="content")
    with upvec.open(tmp_path / "collection"):  # nobody holds its lock
        pass


def test_a_collection_of_another_process_is_refused(tmp_path: Path) -> None:
    # As good as another process: this handle is not one that is shared.
    collection = upvec.open(tmp_path / "collection", SCHEMA)
    with pytest.raises(upvec.LockedError):
        Documents(tmp_path / "collection")
    collection.close()


def test_many_threads_that_begin_at_once_get_one_handle(tmp_path: Path) -> None:
    stores = [Documents(tmp_path / "collection") for _ in range(4)]
    threads = [
        threading.Thread(target=write, args=(store, f"{row}")) for row, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(store.opened) for store in stores}) == 1
    assert stores[0].count() == 4
    for store in stores:
        store.close()
