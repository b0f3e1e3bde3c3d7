"""Folds and tags on a real Ray cluster: two nodes on this machine, with a processor and a cache folder each."""

from __future__ import annotations

import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from helpers import make_dataset, one_line
from servers import free_port
from stores import new_store
from warm import Warm

from fsat.errors import ConfigError
from fsat.options import Cluster
from fsat.parallel import ray_tasks as cluster_module
from fsat.parallel.ray_connection import check_installed

if not os.environ.get("CI"):
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")

SETTINGS = {
    "model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 4, "max_epochs": 3, "patience": 1000,
}  # fmt: skip


class Nodes:
    """Two `ray start` processes, in process groups of their own, each with a cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        head = ["--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false"]
        self.processes = [self._start("head", head)]
        self._wait_for(1)
        self.processes.append(self._start("other", [f"--address={self.address}"]))
        self._wait_for(2)

    def _start(self, name: str, options: list[str]) -> subprocess.Popen:
        environment = {**os.environ, "FSAT_CACHE_DIR": str(self.folder / name), "RAY_health_check_period_ms": "1000"}
        environment |= {"RAY_health_check_initial_delay_ms": "1000", "PYTHONPATH": "", "RAY_AUTH_MODE": "token"}
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1",
                   "--num-cpus=1", "--disable-usage-stats", *options]  # fmt: skip
        with open(self.folder / f"{name}.log", "w") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _wait_for(self, count: int) -> None:
        code = f"import ray; ray.init('{self.address}', logging_level=40); print(sum(n['Alive'] for n in ray.nodes()))"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            environment = {**os.environ, "RAY_AUTH_MODE": "token"}
            done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            if done.stdout.strip() == str(count):
                return
        pytest.fail(f"no Ray cluster: {done.stderr[-2000:]} {(self.folder / 'head.log').read_text()[-2000:]}")

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
        pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]
        root = self.processes[which].pid
        for pid in pids:
            try:
                if self.node_of(pid) == which and pid != root:
                    os.kill(pid, signal.SIGKILL)
            except (AssertionError, OSError):
                continue
        os.kill(root, signal.SIGKILL)
        self.processes[which].wait()

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


def start(folder: Path, *command: object, **options: object) -> Warm:
    arguments = [str(word) for word in command]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": new_store(folder)}
    environment["FSAT_CACHE_DIR"] = str(folder / "cache")
    (folder / "said").unlink(missing_ok=True)
    with open(folder / "said", "w") as said:
        return Warm(["-m", "fsat", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said)


def run(folder: Path, *command: object, **options: object) -> str:
    process = start(folder, *command, **options)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, (folder / "said").read_text()
    return output


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> tuple[Path, list[str]]:
    """The study without Ray: its folder, and its folds' runs."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, run(folder, "cross_validate", data_dir=data, **SETTINGS).strip().split(",")


def client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(new_store(folder))


def predictions(folder: Path, run_id: str) -> list[np.ndarray]:
    root = Path(client(folder).get_run(run_id).info.artifact_uri.removeprefix("file://"))
    return [np.load(root / "predictions" / f"{name}.npy") for name in ("train", "test")]


def assert_same(folder: Path, run_ids: list[str], other: Path, others: list[str]) -> None:
    for run_id, there in zip(run_ids, others, strict=True):
        for a, b in zip(predictions(folder, run_id), predictions(other, there), strict=True):
            np.testing.assert_array_equal(a, b)


def owner(found: mlflow.entities.Run) -> dict:
    return json.loads(found.data.tags["fsat.owner"])


def test_folds_are_spread_over_both_nodes_and_are_those_of_one_machine(nodes, data, alone, tmp_path) -> None:
    options = {"cluster": "ray", "ray_address": nodes.address}
    output = run(tmp_path, "cross_validate", data_dir=data, **SETTINGS, **options)
    run_ids = output.strip().split(",")
    assert_same(tmp_path, run_ids, *alone)
    found = [client(tmp_path).get_run(run_id) for run_id in run_ids]
    assert {found_run.info.status for found_run in found} == {"FINISHED"}
    assert len({owner(found_run)["ray_node"] for found_run in found}) == 2
    parents = {found_run.data.tags["mlflow.parentRunId"] for found_run in found}
    assert [client(tmp_path).get_run(parent).data.tags["fsat.stage"] for parent in parents] == ["cross_validate"]
    said = (tmp_path / "said").read_text()
    assert "2 nodes with 2 processors" in said
    for fold in range(4):
        assert said.count(f"fold {fold}  epoch 3/3") == 1
    for name in ("head", "other"):  # each decoded the clips for itself
        assert list((nodes.folder / name / "clips").glob("*/samples.f32"))
    assert not list((nodes.folder / "head" / "runs").glob("*/checkpoint"))

    run(tmp_path, "ensemble")
    tags = {}
    for how, more in {"alone": {}, "ray": options}.items():
        run(tmp_path, "predict", input=data / "audio_train", output=f"{how}.csv", **more)
        tags[how] = (tmp_path / f"{how}.csv").read_bytes()
    assert tags["ray"] == tags["alone"]
    assert tags["ray"].count(b"\n") == 25

    labels = {}
    for how, more in {"alone": {}, "ray": options}.items():
        run_id = run(tmp_path, "verify", **more).strip()
        root = Path(client(tmp_path).get_run(run_id).info.artifact_uri.removeprefix("file://"))
        labels[how] = pd.read_csv(root / "labels.csv")
    pd.testing.assert_frame_equal(labels["ray"], labels["alone"])


def test_an_error_on_a_node_is_one_line_that_names_it(nodes, data, tmp_path) -> None:
    moved = make_dataset(tmp_path / "moved", clips_per_class=8, test_clips=0)
    process = start(tmp_path, "cross_validate", data_dir=moved, **{**SETTINGS, "learning_rate": 1e38, "n_folds": 2},
                    cluster="ray", ray_address=nodes.address)  # fmt: skip
    process.communicate(timeout=240)
    last = (tmp_path / "said").read_text().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("fsat: error: fold ")
    assert "lower learning_rate" in last
    assert f"on {os.uname().nodename}" in last


def test_a_token_that_is_not_the_clusters_is_one_line(nodes, tmp_path) -> None:
    code = f"""
from fsat.options import Cluster
from fsat.parallel.ray_tasks import map_on
list(map_on(Cluster("ray", "{nodes.address}"), abs, [1]))
"""
    (tmp_path / "token").write_text(secrets.token_hex(32))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    environment["RAY_NUM_REDIS_GET_RETRIES"] = "3"  # Ray's name for how often it asks
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fsat.errors.ConfigError: ")
    assert f"the Ray cluster at {nodes.address} asks for a token that is not here; copy ~/.ray/auth_token" in last


def test_a_node_that_is_lost_costs_no_fold(nodes, data, tmp_path) -> None:
    """The last test of this cluster: its second node is killed while it trains."""
    settings = {**SETTINGS, "max_epochs": 150, "n_folds": 2}
    reference = tmp_path / "reference"
    reference.mkdir()
    process = start(tmp_path, "cross_validate", data_dir=data, **settings, cluster="ray", ray_address=nodes.address)
    killed = None
    deadline = time.monotonic() + 120
    while killed is None:
        assert time.monotonic() < deadline
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.2)
        if "2 nodes" not in (tmp_path / "said").read_text():
            continue
        for found in client(tmp_path).search_runs(
            ["0"], "tags.`fsat.claim` = 'holder' and attributes.status = 'RUNNING'"
        ):
            steps = client(tmp_path).get_metric_history(found.info.run_id, "loss")
            if len(steps) > 5 and nodes.node_of(owner(found)["pid"]) == 1:
                killed = found.info.run_id
    nodes.kill(1)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, (tmp_path / "said").read_text()
    run_ids = output.strip().split(",")
    others = run(reference, "cross_validate", data_dir=data, **settings).strip().split(",")
    assert_same(tmp_path, run_ids, reference, others)
    every = client(tmp_path).search_runs(["0"], "tags.`fsat.stage` = 'train_fold'")
    finished = sorted(found.data.tags["fsat.fold"] for found in every if found.info.status == "FINISHED")
    assert finished == ["0", "1"]
    assert client(tmp_path).get_run(killed).info.status in ("KILLED", "FINISHED")
    assert not [found for found in every if found.info.status == "RUNNING"]
    for run_id in run_ids:
        steps = [metric.step for metric in client(tmp_path).get_metric_history(run_id, "loss")]
        assert sorted(steps) == list(range(150))


# --- what needs no cluster -------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:port", "ray://host:10001"])
def test_addresses_are_checked(address) -> None:
    with pytest.raises(ConfigError, match=r"expected auto or HOST:PORT"):
        Cluster("ray", address)


@pytest.mark.parametrize("need", ["-1", "many", "nan", "inf", ""])
def test_needs_are_checked(need) -> None:
    with pytest.raises(ConfigError, match="ray_cpus"):
        Cluster("ray", cpus=need)
    with pytest.raises(ConfigError, match="ray_gpus"):
        Cluster("ray", gpus=need)


def test_a_cluster_that_is_not_there_is_one_line(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no Ray cluster can be reached") as caught:
        list(cluster_module.map_on(Cluster("ray", f"127.0.0.1:{free_port()}"), abs, [1]))
    assert "ray start" in one_line(caught.value)


def test_neither_is_one_that_this_machine_belonged_to_when_it_was_killed(monkeypatch, tmp_path) -> None:
    """Ray's note of it is still there: it counts as no cluster, unless it is asked for by RAY_ADDRESS."""
    import ray

    gone, started = f"127.0.0.1:{free_port()}", []
    (tmp_path / "ray_current_cluster").write_text(gone)
    monkeypatch.setattr("ray._private.utils.get_ray_address_file", lambda folder: tmp_path / "ray_current_cluster")
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", functools.cache(set))
    monkeypatch.setattr(ray, "init", lambda address, **options: started.append(address))
    monkeypatch.setattr(ray, "nodes", lambda: [])
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(cluster_module, "_task", lambda *given: SimpleNamespace(remote=print))
    assert list(cluster_module.map_on(Cluster("ray"), abs, [])) == []
    assert started == ["local"]
    monkeypatch.setenv("RAY_ADDRESS", gone)
    with pytest.raises(ConfigError, match=rf"can be reached at \S+:{gone.partition(':')[2]} ") as caught:
        list(cluster_module.map_on(Cluster("ray"), abs, []))
    assert "ray start" in one_line(caught.value)
    assert started == ["local"]


def test_without_ray_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[ray\]'"):
        check_installed(Cluster("ray"))
    assert list(cluster_module.map_on(Cluster(), abs, [-1, 2])) == [1, 2]


def test_machines_that_share_no_store_are_refused(monkeypatch, tmp_path) -> None:
    import ray

    node = {"Alive": True, "Resources": {"CPU": 1.0}}
    nodes = [{**node, "NodeManagerAddress": f"10.0.0.{i}"} for i in (1, 2)]
    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ConfigError, match="cannot share sqlite") as caught:
        list(cluster_module.map_on(Cluster("ray"), abs, [1]))
    assert "MLFLOW_TRACKING_URI" in one_line(caught.value)
