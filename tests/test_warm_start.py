"""Warm start: weights of an earlier model, frozen epochs, and what a real store says of runs that start from others."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from clip_files import flip
from helpers import CLASSES, error_line, make_dataset, one_line
from stores import SETTINGS, artifacts, copy_run
from taggers import ONE_OF_EACH

from fsat.cli import cli
from fsat.commands.ensemble import ensemble
from fsat.commands.train import cross_validate, prepare_dataset, train_fold
from fsat.commands.warm_start import with_version
from fsat.config import Config
from fsat.data.dataset import Source, Start, load_dataset
from fsat.errors import ConfigError, RunError
from fsat.models import build, build_for_training, import_keras, save_weights
from fsat.tracking.select_runs import FoldRun, by_run_ids
from fsat.tracking.warm_start import EarlierRuns, choose_start, find_earlier
from fsat.training import fold as training
from fsat.training.warm_start import Earlier, freeze, start_from, unfreeze

keras = import_keras()

EMBEDDING = {"model": "embedding", "backbone": "tiny@0123456789abcdef", "embedding_size": 8, "head": "mlp"}
EACH = (*ONE_OF_EACH, EMBEDDING, {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 1})
MODELS = [options["model"] for options in EACH]
NEW_CLASSES = ("Bell", "Drum", "Flute", "Gong")


# --- weights -----------------------------------------------------------------------------------------


def config_of(options: dict, **others: object) -> Config:
    return Config.resolve({**options, "precision": "float32", **others}).for_task("single")


@pytest.fixture
def earlier_of(tmp_path: Path) -> Callable[..., tuple[keras.Model, Earlier]]:
    """A function that makes an earlier model, all of whose weights differ from fresh ones, and its file."""

    def make(config: Config, labels: Sequence[str] = CLASSES) -> tuple[keras.Model, Earlier]:
        model, rng = build(config, len(labels)), np.random.default_rng(0)
        for layer in model.layers:
            layer.set_weights([1 + rng.random(weight.shape).astype(weight.dtype) for weight in layer.get_weights()])
        save_weights(model, tmp_path / "earlier.weights.h5")
        return model, Earlier(config, list(labels), tmp_path / "earlier.weights.h5")

    return make


def last_layers(model: keras.Model) -> list[keras.Layer]:
    """The dense layers before the softmax: one, or one of each branch."""
    return [layer for layer in model.layers if layer.weights][-2 if model.name == "cnn_logmel" else -1 :]


@pytest.mark.parametrize("options", EACH, ids=MODELS)
def test_layers_are_copied_and_last_ones_by_label(options, earlier_of) -> None:
    config = config_of(options)
    source, earlier = earlier_of(config, ["Bell", "Cello", "Wood_flute"])
    labels = ["Bell", "Drum", "Wood flute", "Gong"]
    model = build_for_training(config, len(labels))
    fresh = [layer.get_weights() for layer in last_layers(model)]
    new = start_from(model, config, labels, earlier)
    assert new == {layer.name: "2 of 4 labels" for layer in last_layers(model)}
    for layer, old in zip(model.layers, source.layers, strict=True):
        if layer not in last_layers(model):
            for weight, expected in zip(layer.get_weights(), old.get_weights(), strict=True):
                np.testing.assert_array_equal(weight, expected)
    for layer, old, before in zip(last_layers(model), last_layers(source), fresh, strict=True):
        for weight, expected, first in zip(layer.get_weights(), old.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight[..., [0, 2]], expected[..., [0, 2]])  # Bell and the flute
            np.testing.assert_array_equal(weight[..., [1, 3]], first[..., [1, 3]])


@pytest.mark.parametrize("options", EACH, ids=MODELS)
def test_the_same_labels_in_another_order_give_the_same_scores(options, earlier_of, capsys) -> None:
    """The statistics of normalization layers come along."""
    config = config_of(options)
    source, earlier = earlier_of(config)
    source.load_weights(earlier.weights)  # as a tagger does
    model = build_for_training(config, 3)
    assert start_from(model, config, ["Flute", "Bell", "Cello"], earlier) == {}
    inputs = np.random.default_rng(1).standard_normal((4, *config.dim)).astype(np.float32)
    np.testing.assert_array_equal(model(inputs).numpy()[:, [1, 2, 0]], source(inputs).numpy())
    assert capsys.readouterr().err == ""


def test_a_hidden_layer_as_wide_as_the_labels_is_copied_as_it_is(earlier_of) -> None:
    config = config_of(ONE_OF_EACH[0])
    many = [f"label {i}" for i in range(64)]  # conv1d has hidden layers of 64 and 1028
    source, earlier = earlier_of(config, many)
    model = build_for_training(config, 64)
    assert start_from(model, config, many[::-1], earlier) == {}
    hidden, old = ([layer for layer in each.layers if layer.weights][-3] for each in (model, source))
    np.testing.assert_array_equal(hidden.get_weights()[0], old.get_weights()[0])
    last, old = (last_layers(each)[0].get_weights()[0] for each in (model, source))
    np.testing.assert_array_equal(last, old[:, ::-1])


def test_layers_of_other_shapes_are_new_and_other_features_are_said(earlier_of, capsys) -> None:
    options = ONE_OF_EACH[1]
    _, earlier = earlier_of(config_of(options))
    config = config_of(options, n_mels=20, sampling_rate=16000)
    new = start_from(build_for_training(config, 3), config, CLASSES, earlier)
    assert new == {"bands": "all"}
    assert "warning: the earlier model was trained with sampling_rate=8000 and n_mels=16" in capsys.readouterr().err
    options = ONE_OF_EACH[2]
    _, earlier = earlier_of(config_of(options))
    config = config_of(options, audio_duration=2)
    model = build_for_training(config, 3)
    dense = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    assert start_from(model, config, CLASSES, earlier) == {dense.name: "all"}
    assert capsys.readouterr().err == ""


def test_layers_with_names_are_copied_by_name(earlier_of) -> None:
    """Attention adds a dense layer before the hidden one, here of the same shape."""
    options = EMBEDDING | {"hidden_units": 64, "embedding_size": 64}
    source, earlier = earlier_of(config_of(options, pooling="mean"))
    config = config_of(options, pooling="attention")
    model = build_for_training(config, 3)
    assert start_from(model, config, CLASSES, earlier) == {"attention_hidden": "all", "attention": "all"}
    for name in ("hidden", "classes", "standardise"):
        for weight, expected in zip(*(each.get_layer(name).get_weights() for each in (model, source)), strict=True):
            np.testing.assert_array_equal(weight, expected)


def test_it_is_an_error_if_nothing_fits(earlier_of) -> None:
    config = config_of(EACH[-1], init_from="abc123")
    _, earlier = earlier_of(config)
    line = error_line(ConfigError, start_from, build_for_training(config, 2), config, ["Drum", "Gong"], earlier)
    assert line == (
        "init_from=abc123: no layer of the earlier dummy1d fits: it has inputs (100, 1), 3 labels (Bell, Cello, Flute);"
        " this model has (100, 1), 2 labels (Drum, Gong); name another tagger, or leave init_from out"
    )


def test_a_head_for_several_labels_does_not_fit_one_for_one(earlier_of, capsys: pytest.CaptureFixture[str]) -> None:
    options = EMBEDDING | {"head": "auto", "pooling": "auto", "hidden_units": 8, "embedding_size": 4}
    _, earlier = earlier_of(config_of(options))
    config = Config.resolve(options | {"precision": "float32", "init_from": "abc123"}).for_task("multi")
    line = error_line(ConfigError, start_from, build_for_training(config, 3), config, CLASSES, earlier)
    assert "it has head=linear, inputs" in line
    assert "this model has head=mlp, " in line
    assert line.endswith("; use head=linear, name another tagger, or leave init_from out")
    config = replace(config, head="linear")
    assert start_from(build_for_training(config, 3), config, CLASSES, earlier) == {}
    assert "the earlier model was trained with pooling=max" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("options", ONE_OF_EACH[1:], ids=MODELS[1:3])
def test_frozen_layers_do_not_change_until_they_are_released(options, earlier_of) -> None:
    config = config_of(options, weight_decay=0.1)
    _, earlier = earlier_of(config)
    model = build_for_training(config, 4)
    new = start_from(model, config, NEW_CLASSES, earlier)
    inputs = np.random.default_rng(1).standard_normal((8, *config.dim)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)[np.arange(8) % 4]

    def changed_by_a_step() -> set[str]:
        before = {layer.name: layer.get_weights() for layer in model.layers}
        model.optimizer.learning_rate = 0.01
        model.train_on_batch(inputs, targets)
        pairs = [(layer, zip(before[layer.name], layer.get_weights(), strict=True)) for layer in model.layers]
        return {layer.name for layer, weights in pairs if any((old != now).any() for old, now in weights)}

    freeze(model, new)
    assert changed_by_a_step() == set(new)
    unfreeze(model, new)
    assert not any(np.any(variable) for variable in model.optimizer.variables)
    assert changed_by_a_step() == {layer.name for layer in model.layers if layer.trainable_variables}


def test_nothing_is_frozen_if_no_layer_is_new(earlier_of, capsys) -> None:
    config = config_of(ONE_OF_EACH[0], init_from="abc123", frozen_epochs=1)
    model = build_for_training(config, 3)
    new = start_from(model, config, CLASSES, earlier_of(config)[1])
    assert "warning: frozen_epochs=1 has no effect" in capsys.readouterr().err
    freeze(model, new)
    assert all(layer.trainable for layer in model.layers)
    model.optimizer.iterations.assign(5)
    unfreeze(model, new)
    assert int(model.optimizer.iterations) == 5


# --- training ----------------------------------------------------------------------------------------

SMALL = {
    "sampling_rate": 8000, "n_folds": 3, "max_epochs": 3, "batch_size": 8, "eval_crops": 1, "precision": "float32",
    "init_from": "abc123", "frozen_epochs": 2,
}  # fmt: skip
AVERAGED = {"model": "conv2d_mfcc", "audio_duration": 1, "n_mfcc": 16, "checkpoint": "average", "average_last": 0.6,
            "weight_decay": 0.01, "mixup": 0.4}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=6, test_clips=2)


@pytest.mark.slow
def test_a_resumed_training_has_the_results_of_an_uninterrupted_one(folder, tmp_path, earlier_of) -> None:
    """After an epoch with frozen layers, and after the last such epoch. The earlier model is fetched once."""
    config = Config(**{**SMALL, **AVERAGED})
    _, earlier = earlier_of(config, NEW_CLASSES)
    dataset, checkpoint = load_dataset(folder, config).starting_from(Start("abc123")), tmp_path / "checkpoint"
    fetched: list[Earlier] = []
    started: list[dict[str, str]] = []

    def fetch() -> Earlier:
        fetched.append(earlier)
        return earlier

    def train(name: str, path: Path, on_epoch: Callable[..., object] = lambda *_: None) -> training.FoldResult:
        (tmp_path / name).mkdir()
        return training.train_fold(dataset, 1, tmp_path / name, on_epoch, path, fetch, started.append)

    whole = train("whole", checkpoint, lambda epoch, *_: shutil.copy(checkpoint, tmp_path / f"after {epoch + 1}"))
    assert started == [whole.state.new_layers]
    assert set(whole.state.new_layers.values()) == {"1 of 3 labels"}
    for epochs in (1, 2):
        result = train(f"rest {epochs}", tmp_path / f"after {epochs}")
        np.testing.assert_array_equal(result.train, whole.train)
        np.testing.assert_array_equal(result.test, whole.test)
        assert result.state.new_layers == whole.state.new_layers
    assert len(fetched) == len(started) == 1


def test_training_does_not_stop_before_layers_are_released(folder, tmp_path, earlier_of) -> None:
    """The loss stands still from the first epoch on."""
    config = Config(**{**SMALL, "model": "dummy1d", "learning_rate": 1e-12, "patience": 1, "max_epochs": 9})
    _, earlier = earlier_of(config, NEW_CLASSES)
    dataset = load_dataset(folder, config).starting_from(Start("abc123"))
    state = training.train_fold(dataset, 1, tmp_path, earlier=lambda: earlier).state
    assert (state.n_epochs, state.best_epoch) == (3, 0)


# --- runs --------------------------------------------------------------------------------------------


def tiny(**options: object) -> Config:
    return Config.resolve({**SETTINGS, "max_epochs": 1, **options})


@pytest.fixture(scope="module")
def study(trained_store) -> list[FoldRun]:
    """Two folds of conv1d, whose tagger is ``tones``."""
    return trained_store.fold_runs


def write_clips(folder: Path, prefix: str, classes: Sequence[str] = NEW_CLASSES) -> Path:
    """Write a dataset of 12 clips, whose names begin with `prefix`."""
    make_dataset(folder, classes=classes, clips_per_class=12 // len(classes), test_clips=2)
    table = folder / "train.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(prefix + line for line in lines[1:]), ""]))
    for path in (folder / "audio_train").iterdir():
        path.rename(path.with_name(prefix + path.name))
    return folder


def run_command(command: str, data: Path, **options: object) -> str:
    """Run a command line with the tiny settings; return its output."""
    settings = {**SETTINGS, "max_epochs": 1, "data_dir": data, **options}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    result = CliRunner().invoke(cli, [command, *arguments])
    assert result.exit_code == 0, result.output
    return result.output


class Pickled:
    """Call a function as processes of their own would, with its arguments alone."""

    def __init__(self, *_: object) -> None: ...

    def map(self, function: Callable[[int], str], items: Sequence[int], _: str) -> list[str]:
        return [pickle.loads(pickle.dumps(function))(item) for item in items]


@pytest.fixture(scope="module")
def other(trained_store, tmp_path_factory) -> tuple[list[FoldRun], str]:
    """A study of other clips that started from ``tones``, and what the command printed."""
    data = write_clips(tmp_path_factory.mktemp("other") / "data", "new_")
    options = {"init_from": "tones@champion", "frozen_epochs": 1, "max_epochs": 2, "parallel_folds": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsat.commands.train.Processes", Pickled)
        output = run_command("cross_validate", data, **options)
    (run_ids,) = re.findall(r"^[0-9a-f]{32},[0-9a-f]{32}$", output, re.MULTILINE)
    return by_run_ids(run_ids.split(",")), output


def test_a_study_starts_from_a_tagger_of_other_classes(study, other) -> None:
    records, output = other
    first = study[0].run_id
    assert f"init_from=models:/tones@champion (models:/tones/1): all folds start from run {first}, fold 0" in output
    for record in records:
        name = f"fold {record.fold} starts from the weights of run {first}; new layers: dense_2 (2 of 4 labels)"
        assert name in output
        tags = record.run.data.tags
        assert record.run.data.params["init_from"] == record.config.init_from == tags["fsat.init_from"] == first
        assert (tags["fsat.init_tagger"], tags["fsat.new_layers"]) == ("models:/tones/1", "dense_2 (2 of 4 labels)")
        assert record.leak == ""
        parent = mlflow.get_run(tags["mlflow.parentRunId"]).data.tags
        assert (parent["fsat.init_from"], parent["fsat.init_tagger"]) == (first, "models:/tones/1")
        origin = f"Training started from the weights of run `{first}` of `models:/tones/1`"
        assert f"{origin}." in parent["mlflow.note.content"]
        assert f"{origin}; new layers: dense_2 (2 of 4 labels)." in tags["mlflow.note.content"]
    assert "too high" not in output


def test_an_ensemble_inherits_the_origin_and_can_be_started_from(study, other, tmp_path) -> None:
    """Clips that trained the tagger at the beginning of the chain are counted."""
    records = other[0]
    made = ensemble(run_ids=[record.run_id for record in records], register_as="again")
    run = mlflow.get_run(made.run_id)
    assert run.data.tags["fsat.init_from"] == study[0].run_id
    assert run.data.tags["fsat.init_tagger"] == "models:/tones/1"
    assert f"weights of run `{study[0].run_id}` of `models:/tones/1`." in run.data.tags["mlflow.note.content"]
    assert f"models:/tones/1, run {study[0].run_id}" in (artifacts(made.run_id) / "report.html").read_text()
    main_run = copy_run(made.run_id, tags={"fsat.stage": "main"})
    mlflow.MlflowClient().set_tag(made.run_id, "mlflow.parentRunId", main_run)
    for init_from in (made.run_id, main_run, "again@champion", "models:/again/latest"):
        earlier = find_earlier(tiny(init_from=init_from))
        assert [record.run_id for record in earlier.chosen] == [records[0].run_id]
        assert earlier.tagger == ("" if "@" not in init_from and ":" not in init_from else "models:/again/1")
    assert with_version(tiny(init_from="again@champion")).init_from == "models:/again/1"
    version = mlflow.MlflowClient().get_model_version("again", "1")
    assert f"weights of run `{study[0].run_id}` of `models:/tones/1`." in version.description
    known = Source(write_clips(tmp_path / "known", "", CLASSES))  # names as in the dataset of `tones`
    n_known = len({name for name in names_trained_on(study[0]) if (known.data_dir / "audio_train" / name).exists()})
    assert 0 < n_known < 12
    leak = f"{n_known} of 12 clips: used, by their names, to train the model that it starts from"
    assert prepare_dataset(known, tiny(init_from=records[0].run_id)).leak == leak
    mlflow.MlflowClient().delete_run(study[0].run_id)
    assert "an unknown number of clips" in prepare_dataset(known, tiny(init_from=records[0].run_id)).leak
    mlflow.MlflowClient().restore_run(study[0].run_id)


def names_trained_on(record: FoldRun) -> list[str]:
    rows = (artifacts(record.run_id) / "predictions/clips.csv").read_text().splitlines()
    return [row.split(",")[0] for row in rows if row.split(",")[1] in ("train", "holdout")]


def test_a_study_of_the_same_folds_starts_fold_by_fold(trained_store, study, capsys) -> None:
    """By a tagger, by the id of one of its folds, or by those of all; the setting is settled to the ids."""
    source, ids = Source(trained_store.data), ",".join(record.run_id for record in study)
    (record,) = by_run_ids([train_fold(source, tiny(init_from="models:/tones/1"), 1)])
    tags = record.run.data.tags
    assert (tags["fsat.init_from"], tags["fsat.init_folds"]) == (study[1].run_id, ids)
    assert (record.config.init_from, record.leak, tags["fsat.new_layers"]) == (ids, "", "none")
    messages = capsys.readouterr().err
    assert f"each fold starts from the earlier run of the same fold: {ids.replace(',', ', ')}" in messages
    assert f"fold 1 starts from the weights of run {study[1].run_id}; new layers: none" in messages
    for init_from in (study[1].run_id, ids):
        assert prepare_dataset(source, tiny(init_from=init_from)).study == record.study
    assert train_fold(source, tiny(init_from=study[0].run_id), 1) == record.run_id  # FINISHED
    assert "starts from the weights" not in capsys.readouterr().err
    typed = copy_run(record.run_id, params={"init_from": "models:/tones/1"})  # by `mlflow run`
    assert by_run_ids([typed])[0].config == record.config


def test_a_tagger_that_has_moved_on_is_another_start(study, trained_store, tmp_path) -> None:
    source = Source(write_clips(tmp_path / "data", "moved_"))
    names = ["tones@champion", "models:/tones/1", "models:/tones/latest", study[0].run_id]
    (known,) = {prepare_dataset(source, tiny(init_from=name)).study for name in names}
    copy, made = copy_run(study[0].run_id), copy_run(trained_store.ensemble.run_id)
    (artifacts(made) / "members.json").write_text(json.dumps([copy, study[1].run_id]))
    client, model = mlflow.MlflowClient(), tmp_path / "model"
    mlflow.artifacts.download_artifacts("models:/tones/1", dst_path=str(model))
    text = (model / "MLmodel").read_text()
    (model / "MLmodel").write_text(text.replace(trained_store.ensemble.run_id, made))
    client.set_registered_model_alias("tones", "champion", client.create_model_version("tones", str(model)).version)
    assert prepare_dataset(source, tiny(init_from="tones@champion")).study != known
    client.set_registered_model_alias("tones", "champion", "1")


def test_clips_that_trained_the_earlier_model_are_said_with_the_scores(trained_store, study, capsys) -> None:
    """Other folds of the same clips."""
    options = {"folds": "stratified", "n_folds": 3, "init_from": study[0].run_id}
    dataset = prepare_dataset(Source(trained_store.data), tiny(**options))
    assert dataset.leak == dataset.marks["leak"] == "12 of 24 clips: used to train the model that it starts from"
    assert f"warning: scores will be too high ({dataset.leak})" in capsys.readouterr().err


def test_clips_that_trained_the_earlier_model_are_known_by_their_sound(trained_store, study, tmp_path) -> None:
    """The same clips in another layout have other names."""
    folder = tmp_path / "data"
    shutil.copytree(trained_store.data, folder)
    table = folder / "train.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"site/{line}" for line in lines[1:]), ""]))
    (folder / "audio_train").rename(tmp_path / "site")
    (folder / "audio_train").mkdir()
    (tmp_path / "site").rename(folder / "audio_train" / "site")
    options = {"folds": "stratified", "n_folds": 3, "init_from": study[0].run_id}
    dataset = prepare_dataset(Source(folder), tiny(**options))
    assert dataset.leak == "12 of 24 clips: used to train the model that it starts from"


def refusal(**options: object) -> str:
    line = error_line(RunError, find_earlier, tiny(**options))
    assert line.startswith(f"init_from={tiny(**options).init_from}: ")
    return line


def test_what_cannot_be_started_from_is_one_line(study, trained_store, tmp_path) -> None:
    run_id, client = study[0].run_id, mlflow.MlflowClient()
    expected = "expected a FINISHED run of train_fold, ensemble or main"
    assert f"no run {'0' * 32} on sqlite" in refusal(init_from="0" * 32)
    for uri in ("models:/missing@champion", "models:/tones@missing", "models:/tones/99"):
        line = refusal(init_from=uri)
        assert "no such tagger on sqlite" in line
        assert expected in line
    line = refusal(init_from=run_id, model="dummy1d")
    assert "it is conv1d, not dummy1d" in line
    assert "train model=conv1d" in line
    assert "it is conv1d, not cnn_logmel" in refusal(init_from="tones@champion", model="cnn_logmel")
    failed = copy_run(run_id, status="FAILED")
    assert f"run {failed} is FAILED; expected FINISHED runs: train fold 0 again" in refusal(init_from=failed)
    for status in ("FAILED", "RUNNING"):
        stopped = copy_run(trained_store.ensemble.run_id, status=status)
        assert f"run {stopped} of ensemble is {status}; {expected}" in refusal(init_from=stopped)
        client.set_terminated(stopped)
    client.delete_run(stopped)
    assert "is deleted" in refusal(init_from=stopped)
    parent = study[0].run.data.tags["mlflow.parentRunId"]
    assert f"run {parent} is of stage cross_validate; {expected}" in refusal(init_from=parent)
    plain = copy_run(trained_store.ensemble.run_id)
    (artifacts(plain) / "members.json").unlink()
    assert "members.json of run" in refusal(init_from=plain)
    three = f"{run_id},{study[1].run_id},{run_id}"
    config = tiny(init_from=three)
    with pytest.raises(RunError) as caught:
        cross_validate(Source(trained_store.data), config)
    assert one_line(caught.value).endswith("these are 3 runs; expected one, or one for each of 2 folds")


def test_heads_start_from_those_on_the_same_backbone(study, folder) -> None:
    dataset = load_dataset(folder, tiny())
    other, config = (config_of({**EMBEDDING, "backbone": f"tiny@{digit * 16}"}, init_from="abc123") for digit in "12")
    earlier = EarlierRuns([replace(study[0], config=other)], [])
    line = error_line(RunError, choose_start, earlier, replace(dataset, config=config))
    assert line.startswith(f"init_from=abc123: it has the backbone {other.backbone}, not {config.backbone}")
    assert choose_start(earlier, replace(dataset, config=other)).init_from == study[0].run_id


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_damaged_weights_are_not_used(damage, study, tmp_path) -> None:
    damaged = copy_run(study[0].run_id)
    name = "weights/best.weights.h5"
    path = artifacts(damaged) / name
    damage(path, path.stat().st_size // 2) if damage is flip else damage(path)
    with pytest.raises(RunError) as caught:
        train_fold(Source(write_clips(tmp_path / "data", "new_")), tiny(init_from=damaged), 0)
    line = one_line(caught.value)
    assert line.startswith(f"run {damaged}: {name} ")
    assert "train fold 0 again" in line
