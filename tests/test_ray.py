"""Folds and tags on a real Ray cluster: two nodes on this machine, each with one processor and a cache folder."""

from __future__ import annotations

import functools
import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT
from fsat_process import FsatProcess, start_fsat
from helpers import make_dataset, one_line, wait_for
from servers import free_port
from stores import new_store, predictions

from fsat.errors import ConfigError
from fsat.options import Cluster
from fsat.parallel.ray_cluster import check_installed, connected

if not os.environ.get("CI"):
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")

SETTINGS = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 100}
SETTINGS["patience"] = 1000
ONE_TASK = """
import sys
from fsat.options import Cluster
from fsat.parallel.ray_cluster import RayCluster
list(RayCluster(Cluster("ray", sys.argv[1]), 1, "http://127.0.0.1:1", True).map(Cluster, ["nonsense"], "fold"))
"""


class Nodes:
    """Two `ray start` processes, in process groups of their own, each with a cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, port = folder, free_port()
        self.address = f"127.0.0.1:{port}"
        self.processes = [self._start("head", ["--head", f"--port={port}", "--include-dashboard=false"])]
        self.processes.append(self._start("other", [f"--address={self.address}"]))

    def _start(self, name: str, options: list[str]) -> subprocess.Popen:
        checks = dict.fromkeys(("RAY_health_check_period_ms", "RAY_health_check_initial_delay_ms"), "1000")
        variables = {"FSAT_CACHE_DIR": str(self.folder / name), "PYTHONPATH": "", "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, "RAY_AUTH_MODE": "token", **checks, **variables}
        options = ["--block", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats", *options]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        path = self.folder / f"{name}.log"
        with open(path, "w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: "Ray runtime started" in path.read_text(), 60)
        return process

    def node_of(self, pid: int) -> int:
        """Which of the two a process belongs to."""
        groups = [process.pid for process in self.processes]
        while pid > 1:
            if pid in groups:
                return groups.index(pid)
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        raise AssertionError("of neither node")

    def kill(self, which: int) -> None:
        """As if it lost its power."""
        root = self.processes[which]
        for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]:
            with suppress(AssertionError, OSError):
                if self.node_of(pid) == which and pid != root.pid:
                    os.kill(pid, signal.SIGKILL)
        root.kill()
        root.wait()

    def stop(self) -> None:
        for which, process in enumerate(self.processes):
            if process.poll() is None:
                self.kill(which)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "token").write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / "token")
    started = Nodes(folder)
    yield started
    started.stop()
    del os.environ["RAY_AUTH_TOKEN_PATH"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tones"
    return make_dataset(folder, clips_per_class=8, unverified=0.5, test_clips=3)


def start(folder: Path, *command: object, **options: object) -> FsatProcess:
    return start_fsat(folder, new_store(folder), *command, **options)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> list[list[bytes]]:
    """The predictions of each fold of the study without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    run_ids = start(folder, "cross_validate", data_dir=data, **SETTINGS).finish().split(",")
    return [predictions(run_id, client(folder)) for run_id in run_ids]


def client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(new_store(folder))


def owner(fold_run: mlflow.entities.Run) -> dict:
    return json.loads(fold_run.data.tags["fsat.owner"])


@pytest.mark.ray
def test_folds_and_tags_from_both_nodes_equal_those_of_one_machine(nodes, data, alone, tmp_path) -> None:
    options = {"cluster": "ray", "ray_address": nodes.address}
    process = start(tmp_path, "cross_validate", data_dir=data, **SETTINGS, **options)
    run_ids = process.finish().split(",")
    assert [predictions(run_id, client(tmp_path)) for run_id in run_ids] == alone
    fold_runs = [client(tmp_path).get_run(run_id) for run_id in run_ids]
    assert {fold_run.info.status for fold_run in fold_runs} == {"FINISHED"}
    assert len({owner(fold_run)["ray_node"] for fold_run in fold_runs}) == 2
    parents = {fold_run.data.tags["mlflow.parentRunId"] for fold_run in fold_runs}
    assert [client(tmp_path).get_run(parent).data.tags["fsat.stage"] for parent in parents] == ["cross_validate"]
    assert "2 nodes with 2 CPUs" in process.stderr
    for fold in range(SETTINGS["n_folds"]):
        assert process.stderr.count(f"fold {fold}  epoch 100/100") == 1
    for name in ("head", "other"):  # each node decoded the clips for itself
        assert list((nodes.folder / name / "clips").glob("*/samples.f32"))
    assert not list((nodes.folder / "head" / "runs").glob("*/checkpoint"))

    start(tmp_path, "ensemble").finish()
    for name, more in {"alone": {}, "ray": options}.items():
        start(tmp_path, "predict", input=data / "audio_train", output=f"{name}.csv", **more).finish()
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert (tmp_path / "ray.csv").read_text().count("\n") == 25


@pytest.mark.ray
def test_an_error_on_a_node_and_a_wrong_token_are_one_line(nodes, tmp_path) -> None:
    (tmp_path / "token").write_text(secrets.token_hex(32))
    for token, line in {
        nodes.folder / "token": f"RunError: fold nonsense: on {os.uname().nodename}: cluster=nonsense: expected one of",
        tmp_path / "token": f"the Ray cluster at {nodes.address} expects another token; copy ~/.ray/auth_token",
    }.items():
        attempts = {"RAY_NUM_REDIS_GET_RETRIES": "3"}  # to connect
        environment = {**os.environ, **attempts, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN_PATH": str(token)}
        command = [sys.executable, "-c", ONE_TASK, nodes.address]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("fsat.errors.")
        assert line in last


@pytest.mark.ray
def test_a_lost_node_loses_no_fold(nodes, data, alone, tmp_path) -> None:
    """The last test of this cluster: it kills the second node while that trains."""
    process = start(tmp_path, "cross_validate", data_dir=data, **SETTINGS, cluster="ray", ray_address=nodes.address)
    process.wait_for("2 nodes")
    store, on_second = client(tmp_path), []

    def is_training_on_second() -> bool:
        assert process.returncode is None, process.stderr
        running = store.search_runs(["0"], "tags.`fsat.stage` = 'train_fold' and attributes.status = 'RUNNING'")
        for fold_run in running:
            steps = store.get_metric_history(fold_run.info.run_id, "loss")
            if len(steps) > 5 and nodes.node_of(owner(fold_run)["pid"]) == 1:
                on_second.append(fold_run.info.run_id)
        return bool(on_second)

    wait_for(is_training_on_second, 120)
    nodes.kill(1)
    run_ids = process.finish().split(",")
    assert [predictions(run_id, client(tmp_path)) for run_id in run_ids] == alone
    fold_runs = store.search_runs(["0"], "tags.`fsat.stage` = 'train_fold'")
    finished = sorted(fold_run.data.tags["fsat.fold"] for fold_run in fold_runs if fold_run.info.status == "FINISHED")
    assert finished == ["0", "1"]
    assert store.get_run(on_second[0]).info.status in ("KILLED", "FINISHED")
    assert not [fold_run for fold_run in fold_runs if fold_run.info.status == "RUNNING"]
    for run_id in run_ids:
        assert sorted(metric.step for metric in store.get_metric_history(run_id, "loss")) == list(range(100))


# --- without a cluster ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("address", text) for text in ("somewhere", "host:", ":6379", "host:port", "ray://host:10001")),
        *((name, text) for name in ("cpus", "gpus") for text in ("-1", "many", "nan", "inf", "")),
    ],
)
def test_addresses_and_needs_are_checked(field, value) -> None:
    with pytest.raises(ConfigError, match=f"ray_{field}=.*: expected auto or "):
        Cluster("ray", **{field: value})


def connect(address: str = "auto", tracking_uri: str = "http://127.0.0.1:1", is_remote: bool = True) -> None:
    with connected(Cluster("ray", address), tracking_uri, is_remote):
        pass


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot reach a Ray cluster at") as caught:
        connect(f"127.0.0.1:{free_port()}")
    assert "ray start" in one_line(caught.value)


def test_the_record_of_a_killed_cluster_is_ignored(monkeypatch, tmp_path) -> None:
    """It counts as no cluster, unless RAY_ADDRESS names it."""
    import ray

    gone, started = f"127.0.0.1:{free_port()}", []
    (tmp_path / "ray_current_cluster").write_text(gone)
    monkeypatch.setattr("ray._private.utils.get_ray_address_file", lambda folder: tmp_path / "ray_current_cluster")
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", functools.cache(set))
    monkeypatch.setattr(ray, "init", lambda address, **options: started.append(address))
    monkeypatch.setattr(ray, "nodes", lambda: [])
    monkeypatch.setattr(ray, "cluster_resources", dict)
    connect()
    assert started == ["local"]
    monkeypatch.setenv("RAY_ADDRESS", gone)
    with pytest.raises(ConfigError, match=rf"cannot reach a Ray cluster at \S+:{gone.partition(':')[2]} ") as caught:
        connect()
    assert "ray start" in one_line(caught.value)
    assert started == ["local"]


def test_rays_private_function_is_where_it_was() -> None:
    """If this fails, change `fsat.parallel.ray_cluster._own_address` and the range of Ray's versions in pyproject."""
    from ray._private.services import canonicalize_bootstrap_address

    assert callable(canonicalize_bootstrap_address)


def test_without_ray_the_error_tells_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[ray\]'"):
        check_installed(Cluster("ray"))
    check_installed(Cluster())


def test_machines_that_cannot_share_a_store_are_refused(monkeypatch, tmp_path) -> None:
    import ray

    node = {"Alive": True, "Resources": {"CPU": 1.0}}
    nodes = [{**node, "NodeManagerAddress": f"10.0.0.{i}"} for i in (1, 2)]
    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    with pytest.raises(ConfigError, match="cannot share sqlite") as caught:
        connect(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", is_remote=False)
    assert "MLFLOW_TRACKING_URI" in one_line(caught.value)
