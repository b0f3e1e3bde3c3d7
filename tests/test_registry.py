"""The alias champion moves to a better tagger, and one blend is one version."""

from pathlib import Path

import mlflow
import pytest
from helpers import CLASSES, one_line
from taggers import write_tagger

from fsat.errors import RunError
from fsat.tracking.registry import Registered, Score, open_tagger, register

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
