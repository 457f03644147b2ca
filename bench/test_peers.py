"""The comparison: workers, what it does with peers that fail or are static, and its tables."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import command
from bench.data import Dataset, Floats, MissingDataError, load
from bench.measure import Answers, envelope
from bench.peers import __main__ as peers
from bench.peers.base import Keys, PeerDefaults, Settings, StaticDefaults
from bench.peers.plot import Panel, plot
from bench.peers.report import failures, recall_table, update_table
from bench.peers.run import PeerResult, Plan, Rates, SearchPoint, at_recall, measure, measure_grid
from bench.peers.worker import Kind, PeerError, Worker, describe

THREADS = 1


class Exact(PeerDefaults):
    """Measures every row. It is asked in other processes, so it is found by its name."""

    name = "exact"
    grid = ((16, 200), (8, 100))

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        self._rows: Floats = np.empty((0, dim), dtype=np.float32)
        self._live = np.empty(0, dtype=bool)

    @staticmethod
    def version() -> str:
        return "1.0"

    def build(self, vectors: Floats) -> None:
        self._rows, self._live = vectors.copy(), np.ones(len(vectors), dtype=bool)

    def insert(self, keys: Keys, vectors: Floats) -> None:
        raise NotImplementedError

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        distances = 1 - queries @ self._rows.T
        distances[:, ~self._live] = np.inf
        keys = np.argsort(distances, axis=1)[:, :k]
        found = np.take_along_axis(distances, keys, axis=1).astype(np.float32)
        return Answers(keys, found, np.full(len(queries), k))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        for query in queries:
            self.search(query[None], k, ef)

    def update(self, keys: Keys, vectors: Floats) -> None:
        self._rows[keys] = vectors

    def remove(self, keys: Keys) -> None:
        self._live[keys] = False


class Static(StaticDefaults, Exact):
    name = "static"


class Counting(Exact):
    """Its version is the number of processors that it may use."""

    name = "counting"

    @staticmethod
    def version() -> str:
        return str(len(os.sched_getaffinity(0)))


class Crashing(Exact):
    """Its process dies at the first update."""

    name = "crashing"

    def update(self, keys: Keys, vectors: Floats) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Raising(Exact):
    name = "raising"

    def build(self, vectors: Floats) -> None:
        raise RuntimeError(f"no room for {len(vectors)} rows")


class Repeating(Exact):
    name = "repeating"

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        keys, distances, counts = super().search(queries, k, ef)
        return Answers(np.zeros_like(keys), distances, counts)


def kind_of(peer: type[Exact]) -> Kind:
    where = f"{__name__}:{peer.__name__}"
    return Kind(peer.name, peer.updates, peer.exact_distances, tuple(peer.grid), where, "1.0")


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load("sample")
    return Dataset("part", whole.metric, whole.base[:300], whole.queries[:20])


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(f"{__name__}:Exact", THREADS)
    yield made
    made.close()


PLAN = Plan(rounds=1, efs=(16,), update_batch=150)


# Workers ----------------------------------------------------------------------------------


def test_a_worker_answers_as_the_peer_does(worker: Worker, data: Dataset, tmp_path: Path) -> None:
    base = tmp_path / "base.npy"
    np.save(base, data.base)
    settings = Settings(threads=THREADS)
    cost = worker.call("build", str(base), data.queries, data.metric, settings)
    assert cost.rows == len(data)
    assert cost.seconds > 0
    here = Exact(data.dim, data.metric, settings)
    here.build(data.base)
    want = here.search(data.queries, 5, 16).keys
    np.testing.assert_array_equal(worker.call("search", 5, 16).keys, want)
    assert worker.call("time_search", 5, 16) > 0


def test_a_worker_tells_what_its_peer_is() -> None:
    found = describe(f"{__name__}:Static")
    assert (found.name, found.updates, found.version()) == ("static", False, "1.0")


def test_what_a_peer_raises_comes_over_the_pipe(worker: Worker) -> None:
    with pytest.raises(PeerError, match=r"search: RuntimeError: build\(\) comes first"):
        worker.call("search", 5, 16)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not pin")
def test_a_worker_runs_on_as_many_processors_as_it_has_threads() -> None:
    assert describe(f"{__name__}:Counting").version() == "1"


# Peers that fail, and such as are static --------------------------------------------------


def test_a_peer_that_raises_or_dies_is_left_out_and_the_others_go_on(data: Dataset) -> None:
    kinds = [kind_of(peer) for peer in (Exact, Crashing, Raising, Repeating)]
    found = measure(data, kinds, Settings(threads=THREADS), PLAN, lambda _: None)
    (exact,), (crashing,), (raising,), (repeating,) = found.values()
    assert exact.failed is None
    assert exact.churn is not None
    assert (exact.churn.after.recall, exact.churn.removed.recall) == (1.0, 1.0)
    assert exact.churn.removed.faults == 0
    # What it had before its end is kept.
    assert crashing.failed == "update: its process ended with SIGKILL"
    assert crashing.search[10][0].recall == 1.0
    assert raising.failed == "build: RuntimeError: no room for 300 rows"
    assert repeating.failed is not None
    assert "twice in one answer" in repeating.failed
    assert len(failures(found)) == 3


def test_static_peers_are_searched_and_left_out_of_the_updates(data: Dataset) -> None:
    kinds = [kind_of(peer) for peer in (Exact, Static)]
    found = measure(data, kinds, Settings(threads=THREADS), PLAN, lambda _: None)
    (static,) = found["static"]
    assert static.failed is None
    assert static.churn is None
    assert static.search[10][0].recall == 1.0
    assert "static" in update_table(found, PLAN).splitlines()[-1]


def test_static_peers_are_no_choice_where_all_is_updates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = command.Known(f"{__name__}:Static", "numpy", "numpy")
    monkeypatch.setitem(command.PEERS, "static", known)
    assert command.find_peers(["static"]) == []
    assert "static is left out" in capsys.readouterr().err


def test_a_missing_package_is_named_by_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = command.Known("nowhere:Nothing", "no_such_module_here", "a-package")
    monkeypatch.setitem(command.PEERS, "missing", known)
    assert command.describe_peers(["missing"]) == []
    assert "missing is left out: pip install a-package" in capsys.readouterr().err


# Several builds ---------------------------------------------------------------------------


def test_a_grid_measures_every_build_of_every_peer(data: Dataset) -> None:
    found = measure_grid(data, [kind_of(Exact)], THREADS, PLAN, lambda _: None)
    settings = [(result.settings.M, result.settings.ef_construction) for result in found["exact"]]
    assert settings == [(16, 200), (8, 100)]
    assert all(result.search[10] for result in found["exact"])


def built(name: str, M: int, *points: tuple[float, float]) -> PeerResult:
    kind = Kind(name, True, True, (), "", "")
    search = [
        SearchPoint(10 + at, recall, Rates([rate])) for at, (recall, rate) in enumerate(points)
    ]
    return PeerResult(kind, Settings(M=M), search={10: search})


def test_points_that_another_beats_are_under_the_envelope() -> None:
    points = [(0.9, 100.0), (0.95, 120.0), (0.99, 50.0), (0.98, 40.0), (1.0, 10.0)]
    assert envelope(points) == [(0.95, 120.0), (0.99, 50.0), (1.0, 10.0)]
    assert envelope([]) == []


def test_the_best_of_several_builds_is_read_off_at_each_recall() -> None:
    small = built("hnswlib", 8, (0.94, 300.0), (0.96, 200.0), (0.98, 20.0))
    large = built("hnswlib", 32, (0.94, 200.0), (0.98, 100.0), (0.995, 50.0))
    both = at_recall([small, large], 10, 0.95).rate
    alone = at_recall([small], 10, 0.95).rate
    assert both == alone  # there the small one is the faster
    assert at_recall([small], 10, 0.99).rate is None
    assert at_recall([small, large], 10, 0.99).rate == at_recall([large], 10, 0.99).rate
    ours = [built("upvec", 16, (0.94, 600.0), (0.96, 400.0), (0.995, 75.0))]
    lines = recall_table({"upvec": ours, "hnswlib": [small, large]}, 10).splitlines()
    cells = [cell.strip() for cell in lines[-1].split("|")]
    assert "8, 200" in cells
    assert "32, 200" in cells
    assert "2.00" in lines[2]  # upvec's ratio at .95


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    builds = {"upvec": [built("upvec", 16, (0.94, 600.0), (1.0, 400.0))], "gone": []}
    plot([Panel("a set", 10, builds)], 1, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 0


# The command ------------------------------------------------------------------------------


def test_a_fault_of_upvec_fails_the_run() -> None:
    result = built("upvec", 16, (0.5, 600.0))
    assert peers._faults([result]) == ["recall 0.5000 at ef 10; want 0.9"]
    result.failed = "search: its process ended with SIGSEGV"
    assert result.failed in peers._faults([result])


def test_a_picture_without_matplotlib_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    find = peers.need_matplotlib.__globals__["importlib"].util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "matplotlib" else find(name, *rest)

    monkeypatch.setattr("importlib.util.find_spec", without)
    assert peers.main(["--plot", str(tmp_path / "out.png")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "rows"), [("sift-7", 7), ("sift-2k", 2000)])
def test_any_number_of_descriptors_may_be_asked_for(tmp_path: Path, name: str, rows: int) -> None:
    stored = np.zeros((2500, 4), dtype=np.uint8)
    np.save(tmp_path / "sift-u8.npy", stored)
    np.save(tmp_path / "sift-queries-u8.npy", stored[:3])
    found = load(name, tmp_path)
    assert (len(found), found.metric, found.name) == (rows, "l2", name)
    with pytest.raises(MissingDataError, match="has 2,500 rows; sift-3k wants 3,000"):
        load("sift-3k", tmp_path)
