"""The alias champion moves to a better tagger, one blend is one version, and what cannot be registered is refused."""

import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mlflow
import pytest
from helpers import CLASSES, error_line, one_line
from taggers import TINY, register_tagger, write_tagger

from fsat.cli import run
from fsat.errors import ConfigError, RunError
from fsat.model_names import check_model_name
from fsat.study import RECIPE
from fsat.tagging import Tagger
from fsat.tracking import registry
from fsat.tracking.model_uri import pinned
from fsat.tracking.registry import Registered, Score, check_registration, open_tagger, register, requirements

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tagger(store, tmp_path_factory) -> Path:
    return write_tagger(tmp_path_factory.mktemp("tagger") / "tagger", n_folds=1)


def champion() -> int:
    return int(mlflow.MlflowClient().get_model_version_by_alias("tones", "champion").version)


def test_champion_moves_only_as_promote_says(tagger):
    def registered(blend: str, map3: float, promote="auto", dataset="tones", clips=24) -> Registered:
        return register("tones", tagger, CLASSES, Score(map3, clips), dataset, promote, blend)

    first = registered("first", 0.8)
    assert (first.version, first.promoted) == (1, True)
    worse = registered("worse", 0.7)
    assert not worse.promoted
    assert "does not beat" in worse.outcome
    assert "promote=never" in registered("worse", 0.9, "never").outcome
    assert champion() == 1
    fewer = registered("fewer", 0.9, clips=12)
    assert not fewer.promoted
    assert "fewer clips" in fewer.outcome
    assert registered("forced", 0.1, "always").promoted
    better = registered("better", 0.2)
    assert "beats" in better.outcome
    assert champion() == better.version
    other = registered("other", 0.1, dataset="another")
    assert "another dataset" in other.outcome
    assert champion() == other.version


def test_the_same_blend_is_registered_once(tagger):
    def registered() -> Registered:
        return register("once", tagger, CLASSES, Score(0.8, 24), "tones", "auto", "blend")

    client, first = mlflow.MlflowClient(), registered()
    client.delete_registered_model_alias("once", "champion")  # as if a signal came before the alias was set
    second = registered()
    assert second.version == first.version == 1
    assert second.promoted
    assert "is this blend already, and stays champion" in registered().outcome
    assert len(client.search_model_versions("name = 'once'")) == 1


def test_a_tagger_whose_loader_is_gone_is_one_line(store, tmp_path):
    (tmp_path / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: fsat.tagger\n")
    with pytest.raises(RunError, match="another version of fsat") as caught:
        open_tagger(str(tmp_path))
    assert "mlflow run . -e ensemble" in one_line(caught.value)


@pytest.mark.parametrize(
    "name", ["a b", "a'b", "a`b", "a%b", "a%2fb", "a#b", "é", "(a;b)", "12", "a.b", "-a", "x" * 256]
)
def test_a_name_that_is_allowed_is_found_again(name, store):
    check_registration(name, "auto")
    client = mlflow.MlflowClient()
    client.create_registered_model(name)
    number = client.create_model_version(name, str(store)).version
    client.set_registered_model_alias(name, "champion", number)
    assert pinned(f"models:/{name}@champion") == f"models:/{name}/{number}"


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "team/birds", "a:b", "a@b", "a?b", "a\\", 'a"b', "a\nb", "a\x00b", " a", "x" * 257]
)
def test_a_name_that_cannot_be_used_is_one_line(name):
    line = error_line(ConfigError, check_model_name, name)
    assert line.startswith("register_as=")
    assert line.endswith("such as team-birds")
    assert len(line) < 250


def test_when_to_promote_is_checked_first(store):
    assert "promote=maybe: expected one of auto, always, never" in error_line(
        ConfigError, check_registration, "tones", "maybe"
    )


def test_a_registry_that_cannot_be_used_is_an_error_first(store, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_text("no database")
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: mlflow.tracking.MlflowClient(
        registry_uri=f"sqlite:///{tmp_path}/mlflow.db"
    ))  # fmt: skip
    error_line(RunError, check_registration, "tones", "auto")


def test_requirements_can_be_installed_from_the_index(monkeypatch, capsys):
    assert "numpy==" + version("numpy").partition("+")[0] in requirements()
    versions = {"numpy": "2.4.6+cluster", "tensorflow-cpu": "2.21.0", "tf-nightly": "3.0.0.dev20260101", "soxr": None}
    distributions = {"tensorflow": ["tf-nightly", "tensorflow-cpu"], "keras": ["tf-nightly"], "scipy": ["scipy"]}

    def version_of(name: str) -> str | None:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(registry, "version", version_of)
    monkeypatch.setattr(registry, "packages_distributions", lambda: distributions)
    found = requirements()
    assert found[:4] == ["tensorflow-cpu==2.21.0", "tf-nightly==3.0.0.dev20260101", "numpy==2.4.6", "scipy"]
    assert found[-2:] == ["soxr", "mlflow"]
    said = capsys.readouterr().err.splitlines()
    assert "warning: no package metadata states the version of soxr; the tagger's requirements leave it open" in said


def test_a_tagger_of_another_recipe_is_refused(store, tmp_path, monkeypatch, capsys, signals):
    folder = write_tagger(tmp_path / "tagger", [TINY], n_folds=1)
    facts = json.loads((folder / "tagger.json").read_text())
    for recipe in (RECIPE - 1, RECIPE + 1, str(RECIPE)):
        (folder / "tagger.json").write_text(json.dumps({**facts, "recipe": recipe}))
        line = error_line(RunError, Tagger, folder)
        assert f"made by recipe {recipe} of fsat, whose scores differ from those of this one ({RECIPE})" in line
        assert line.endswith("`mlflow models serve`")
    del facts["recipe"]
    (folder / "tagger.json").write_text(json.dumps(facts))
    assert "expected labels, recipe, blend" in error_line(RunError, Tagger, folder)

    (folder / "tagger.json").write_text(json.dumps({**facts, "recipe": 1}))
    with monkeypatch.context() as older:
        older.setattr("fsat.tagging.tagger_folder.RECIPE", 1)
        register_tagger(folder, "old")
    (tmp_path / "clip.wav").touch()
    uri, output = "models:/old@champion", str(tmp_path / "tagger.onnx")
    for command in (
        ["predict", "--input", str(tmp_path / "clip.wav")],
        ["export", "--format=onnx", "--output", output],
    ):
        assert run([*command, "--model", uri]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert re.match(r"fsat: error: model=models:/old/1: .*tagger.json: made by recipe 1 of fsat", error)
    assert not Path(output).exists()
