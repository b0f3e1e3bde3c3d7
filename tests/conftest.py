"""Fixtures that several modules use, and the order of the modules."""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from stores import TrainedStudy, current_store, train_study

ROOT = Path(__file__).resolve().parent.parent
SLOWEST_FIRST = (
    "project", "pipeline", "server", "export", "warm_start", "ray", "embedding_study", "export_backbones", "fold",
    "predict", "evaluate", "backbones", "verify", "verify_multilabel", "resume", "ownership", "inspect_backbone",
    "embed_commands", "interrupts", "app", "any_label", "serving", "mlflow_ui", "live_metrics", "hostile",
    "report_page", "eda_page", "download", "pyfunc", "models", "layers", "ensemble_memory", "synth", "logmel",
    "sound_events",
)  # fmt: skip
"""Modules that take longest: pytest-xdist hands modules out in this order, so that all workers end at about the same
time."""

for name in [name for name in os.environ if name.startswith(("MLFLOW_", "FSAT_")) and name != "FSAT_SHARED"]:
    del os.environ[name]
# Only the installation may need a network: requests that leave this machine go to a closed port.
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[name] = "http://127.0.0.1:9"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Set a cache folder of the tests' own."""
    os.environ["FSAT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def cache_folder(tmp_path, monkeypatch) -> Path:
    """Set a cache folder of the test's own."""
    monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest modules first, and mark the tests that need the trained study as slow."""
    rank = {f"test_{name}": i for i, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
    for item in items:
        if "trained_study" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def processes():
    """Exclude what is imported from garbage collection, a quarter of a short training; kill what failed tests left."""
    gc.collect()
    gc.freeze()
    yield
    for process in multiprocessing.active_children():
        process.kill()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real recordings beside the repository."""
    folder = Path(os.environ.get("FSAT_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real recordings in {folder}: set FSAT_SHARED to a folder with data/ and tools/")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Path]:
    """Run the module in a folder with an empty SQLite tracking store."""
    with current_store(tmp_path_factory.mktemp("store")) as folder:
        yield folder


@pytest.fixture(scope="session")
def trained_study(tmp_path_factory, cache) -> TrainedStudy:
    """Return the study that is trained once per test run, for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained_study"
    root.mkdir(exist_ok=True)
    with FileLock(root / "lock"):
        return train_study(root)


@pytest.fixture(scope="module")
def trained_store(trained_study, tmp_path_factory) -> Iterator[TrainedStudy]:
    """Run the module in a folder with a copy of the trained study."""
    folder = tmp_path_factory.mktemp("store")
    trained_study.copy(folder)
    with current_store(folder):
        yield trained_study


@pytest.fixture
def signals():
    """Install fsat's signal handlers for one test."""
    from fsat import interrupts

    before = {signum: signal.getsignal(signum) for signum in (*interrupts.SIGNALS, signal.SIGALRM)}
    interrupts.install()
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)
    interrupts.state = interrupts.State()
