"""A benchmark on a cluster of three nodes that loses one in the middle; needs Ray."""

from __future__ import annotations

import filecmp
import json
import threading
import time
from pathlib import Path

import pytest

from invariantzoo.training.benchmark import engines
from invariantzoo.training.benchmark.units import Unit

pytest.importorskip("ray", reason="needs Ray: pip install ray")

ID = "quadratic-regimes-v0"
UNITS = [Unit(ID, "ppo", "adam", seed, 150_000) for seed in range(4)]


@pytest.mark.filterwarnings("ignore")  # of Ray's own threads and files
def test_what_a_lost_node_was_doing_is_done_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every unit ends, and its policy equals bit for bit that of an undisturbed run."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    lost: list[str] = []

    def lose_a_node() -> None:
        """One that works on a unit that has a checkpoint and is not done."""
        while not any((shared / unit.name / "checkpoint.pt").exists() for unit in UNITS):
            time.sleep(0.05)
        begun = [unit.name for unit in UNITS if (shared / unit.name / "config.json").exists()]
        cluster.remove_node(nodes[0], allow_graceful=False)
        lost.extend(begun)

    breaker = threading.Thread(target=lose_a_node)
    breaker.start()
    try:
        assert engines.ray(UNITS, shared) == []
    finally:
        breaker.join()
        ray.shutdown()
        cluster.shutdown()
    assert lost
    assert engines.local(UNITS, alone, jobs=2) == []
    begun_twice = 0
    for unit in UNITS:
        here, there = shared / unit.name, alone / unit.name
        assert unit.done(shared)
        assert unit.report(shared)["scores"] == unit.report(alone)["scores"]
        assert json.loads((here / "config.json").read_text()) == json.loads(
            (there / "config.json").read_text()
        )
        assert filecmp.cmp(here / "checkpoint.pt", there / "checkpoint.pt", shallow=False)
        log = here.with_name(here.name + engines.LOG).read_text()
        begun_twice += "goes on from" in log or "no checkpoint yet" in log
    assert begun_twice
