"""Which version a model URI stands for, and that one table is by one version."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from helpers import error_line, tone, write_wav
from stores import current_store
from taggers import TINY, register_tagger, write_tagger

from fsat.commands.predict import _loaded, _tag_task, predict
from fsat.errors import DataError, RunError
from fsat.options import CLIPS
from fsat.tagging import ledger
from fsat.tagging.ledger import File
from fsat.tagging.tag_groups import GROUP_SIZE
from fsat.tracking.model_uri import pinned
from fsat.tracking.registry import open_tagger


@pytest.fixture
def registry(tmp_path):
    with current_store(tmp_path):
        yield mlflow.MlflowClient()


def create(client: mlflow.MlflowClient, name: str, n_versions: int) -> None:
    client.create_registered_model(name)
    for _ in range(n_versions):
        client.create_model_version(name, "somewhere")


@pytest.mark.parametrize(
    "name", ["fsat", "my birds", "it's", 'it\'s "it"', "a@b", "100%25", "a#b", "grün", "a_b", "x;y"]
)
def test_aliases_and_latest_stand_for_versions(registry, name) -> None:
    create(registry, name, 11)
    create(registry, 'it_s "it"' if '"' in name else f"{name}2", 12)
    registry.set_registered_model_alias(name, "best", "2")
    expected = {"@best": 2, "/2": 2, "/02": 2, "/latest": 11, "/Latest": 11, "@latest": 11, "/none": 11}
    assert {suffix: pinned(f"models:/{name}{suffix}") for suffix in expected} == {
        suffix: f"models:/{name}/{version}" for suffix, version in expected.items()
    }
    registry.delete_model_version(name, "11")
    assert pinned(f"models:/{name}/latest") == f"models:/{name}/10"
    for unknown in ("@worst", "/11", "/Production"):
        assert pinned(f"models:/{name}{unknown}") == f"models:/{name}{unknown}"


def test_uris_that_stand_for_one_model_are_not_changed(registry) -> None:
    for uri in ("models:/m-0123", "models:/other@champion", "models:/other/latest", "./folder", "runs:/0123/tagger",
                "models://profile@databricks/fsat/1", "file:///tmp/x", "models:/"):  # fmt: skip
        assert pinned(uri) == uri


@pytest.fixture(scope="module")
def taggers(store, tmp_path_factory) -> list[Path]:
    """Two taggers that score sounds differently."""
    root = tmp_path_factory.mktemp("taggers")
    return [
        write_tagger(root / str(i), [settings], n_folds=1) for i, settings in enumerate([TINY, {**TINY, "seed": 5}])
    ]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i in range(GROUP_SIZE + 6):
        write_wav(folder / f"{i:03d}.wav", tone(200 + 40 * i, 0.1, 8000), 8000)
    return folder


def interrupted(clips: Path, output: Path, model: str) -> None:
    """Stop a tagging after its first group."""
    record = ledger.Ledger.record

    def stop(self: ledger.Ledger, results: list) -> None:
        record(self, results)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger.Ledger, "record", stop)
        predict(str(clips), output, model, workers="1")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["{}@champion", "models:/{}/latest"])
def test_a_table_goes_on_with_the_version_that_it_began_with(taggers, clips, tmp_path, capsys, how) -> None:
    name = f"moving {'latest' if 'latest' in how else 'alias'}"
    model, output = how.format(name), tmp_path / "tags.parquet"
    with mlflow.start_run() as run:
        assert register_tagger(taggers[0], name, blend="first") == 1
    own_run = run.info.run_id
    predict(str(clips), tmp_path / "whole.parquet", f"models:/{name}/1", workers="1")
    interrupted(clips, output, model)
    assert register_tagger(taggers[1], name, blend="second") == 2
    capsys.readouterr()
    predict(str(clips), output, model, workers="1")
    messages = capsys.readouterr().err
    assert f"goes on with models:/{name}/1, with which it began (resume=false starts anew)" in messages
    assert f"70 of 70 files tagged by models:/{name}/1; table in" in messages
    pd.testing.assert_frame_equal(pd.read_parquet(output), pd.read_parquet(tmp_path / "whole.parquet"))
    run = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'predict'", output_format="list")[0]
    full = model if ":" in model else f"models:/{model}"
    assert {"model": full, "tagger": f"models:/{name}/1", "tagger_run": own_run}.items() <= run.data.params.items()

    interrupted(clips, output, model)
    assert f"models:/{name}/2" in error_line(DataError, predict, str(clips), output, f"models:/{name}/1", workers="1")
    mlflow.MlflowClient().delete_model_version(name, "2")
    line = error_line(RunError, predict, str(clips), output, model, workers="1")
    assert line.startswith(f"{output}: began with models:/{name}/2, which cannot be loaded from ")
    assert line.endswith("start anew with resume=false")
    predict(str(clips), output, f"{model}" if "latest" in how else f"models:/{name}/1", workers="1", resume=False)
    pd.testing.assert_frame_equal(pd.read_parquet(output), pd.read_parquet(tmp_path / "whole.parquet"))


@pytest.mark.slow
def test_a_folder_that_holds_another_tagger_by_then_is_refused(taggers, clips, tmp_path) -> None:
    """The URI is the same in both sittings, and on every machine."""
    register_tagger(taggers[0], "left", blend="first")
    register_tagger(taggers[1], "right", blend="second")
    first, second = (open_tagger(f"models:/{name}/latest") for name in ("left", "right"))
    folder = tmp_path / "model"
    mlflow.artifacts.download_artifacts("models:/left/1", dst_path=str(folder))
    interrupted(clips, tmp_path / "t.csv", str(folder))
    _loaded.cache_clear()
    mlflow.artifacts.download_artifacts("models:/right/1", dst_path=str(folder))
    line = error_line(DataError, predict, str(clips), tmp_path / "t.csv", str(folder), workers="1")
    assert f"tagger={first.digest}, not tagger={second.digest}" in line
    task = [File(1, "000.wav")]
    line = error_line(RunError, _tag_task, str(folder), first.digest, clips, CLIPS, 0.0, [task])
    assert "another tagger" in line
    assert len(_tag_task(str(folder), second.digest, clips, CLIPS, 0.0, [task])) == 1


@pytest.mark.slow
def test_the_model_of_a_run_is_that_which_it_logged_last(taggers) -> None:
    with mlflow.start_run() as run:
        register_tagger(taggers[0], "of a run", blend="first")
    uri = f"runs:/{run.info.run_id}/tagger"
    before = pinned(uri)
    assert before.startswith("models:/m-")
    assert open_tagger(before).digest == open_tagger("models:/of a run/latest").digest
    with mlflow.start_run(run_id=run.info.run_id):
        register_tagger(taggers[1], "of a run", blend="second")
    assert pinned(uri) != before
    assert open_tagger(pinned(uri)).digest != open_tagger(before).digest
