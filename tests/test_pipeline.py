"""Training, ensembling, registering and tagging in a real MLflow store, on clips small enough for a test."""

import json
import re
from dataclasses import replace
from pathlib import Path

import librosa
import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import make_dataset, one_line, write_wav
from scipy.stats import gmean
from stores import SETTINGS, artifacts, copy_run, predictions, write_artifact

from fsat.cli import cli
from fsat.commands.eda import eda
from fsat.commands.ensemble import Ensembled, ensemble, ensemble_best
from fsat.commands.main import main
from fsat.commands.train import cross_validate, train_fold
from fsat.commands.verify_labels import verify
from fsat.config import Config
from fsat.data.audio import decode
from fsat.data.dataset import Source, load_dataset
from fsat.errors import ConfigError, DataError, FsatError, RunError
from fsat.metrics.calibration import reliability
from fsat.model_presets import BLENDS
from fsat.models import build
from fsat.options import Launch
from fsat.reports import run_descriptions
from fsat.tagging import MemberFiles, Tagger, write
from fsat.tracking.fold_artifacts import download
from fsat.tracking.select_runs import FoldRun, by_run_ids

pytestmark = pytest.mark.slow

ARTIFACTS = """
config.json labels.json model.txt plots/class_precision.png plots/confusion.png plots/learning_curves.png
predictions/clips.csv predictions/submission.csv predictions/test.npy predictions/train.npy weights/best.weights.h5
""".split()


def tiny(**options) -> Config:
    return Config.resolve({**SETTINGS, **options})


@pytest.fixture(scope="module")
def study(trained_store) -> list[FoldRun]:
    return trained_store.fold_runs


@pytest.fixture(scope="module")
def blended(trained_store) -> Ensembled:
    return trained_store.ensemble


@pytest.fixture(scope="module")
def data(trained_store) -> Path:
    return trained_store.data


@pytest.fixture(scope="module")
def source(data) -> Source:
    return Source(data)


def names_of(run_id: str) -> set[str]:
    return {str(path.relative_to(artifacts(run_id))) for path in artifacts(run_id).rglob("*")}


def table(run_id: str, path: str) -> pd.DataFrame:
    return pd.read_csv(artifacts(run_id) / path, keep_default_na=False)


def array(run_id: str, name: str) -> np.ndarray:
    return np.load(artifacts(run_id) / "predictions" / f"{name}.npy")


def test_fold_run_parameters_tags_metrics_and_artifacts(study, data):
    record = study[1]
    run = mlflow.get_run(record.run_id)
    params, tags = run.data.params, run.data.tags
    assert run.info.status == "FINISHED"
    assert Config.from_mapping({k: params[k] for k in Config().to_dict()}) == record.config == tiny(folds="column")
    assert (params["fold"], params["n_train"], params["n_val"]) == ("1", "12", "12")
    assert (tags["fsat.stage"], tags["fsat.model"]) == ("train_fold", "conv1d")
    assert mlflow.get_run(tags["mlflow.parentRunId"]).data.tags["fsat.stage"] == "cross_validate"
    (dataset_input,) = run.inputs.dataset_inputs
    assert dataset_input.dataset.digest == tags["fsat.dataset"] == params["dataset_digest"]

    client = mlflow.MlflowClient()
    epochs = list(range(SETTINGS["max_epochs"]))
    for name in "loss acc val_loss learning_rate epoch_seconds clips_per_second val_acc val_map3".split():
        last = [len(epochs)] if name in ("val_acc", "val_map3") else []  # the score of the best weights
        assert [point.step for point in client.get_metric_history(record.run_id, name)] == epochs + last, name
    losses = [point.value for point in client.get_metric_history(record.run_id, "val_loss")]
    assert run.data.metrics["best_val_loss"] == min(losses)
    assert run.data.metrics["best_epoch"] == int(np.argmin(losses))

    names = names_of(record.run_id)
    assert set(ARTIFACTS) <= names
    assert any(name.startswith("tensorboard/") and "events" in name for name in names)
    labels = sorted(set(pd.read_csv(data / "train.csv")["label"]))
    assert json.loads((artifacts(record.run_id) / "labels.json").read_text()) == labels


def test_prediction_arrays_fit_their_table(study, data):
    given = pd.read_csv(data / "train.csv")
    labels = sorted(set(given["label"]))
    held_out = np.zeros(len(given), dtype=int)
    for record in study:
        train, test = array(record.run_id, "train"), array(record.run_id, "test")
        clips = table(record.run_id, "predictions/clips.csv")
        rows, test_names = clips[clips["split"] != "test"], clips["fname"][clips["split"] == "test"].tolist()
        for scores, shape in ((train, (len(given), len(labels))), (test, (6, len(labels)))):
            assert (scores.dtype, scores.shape) == (np.float32, shape)
            np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
        assert sorted(rows["fname"]) == sorted(given["fname"])
        assert dict(zip(rows["fname"], rows["label"], strict=True)) == dict(
            zip(given["fname"], given["label"], strict=True)
        )
        assert test_names[-1] == "empty.wav"
        prior = given["label"].value_counts(normalize=True)[labels].to_numpy()
        np.testing.assert_allclose(test[-1], prior, rtol=1e-6)  # the clip that cannot be used

        val = (rows["split"] == "val").to_numpy()
        held_out += val
        targets = rows["label"].map(labels.index).to_numpy()
        place = (-train[val]).argsort(axis=1, kind="stable")[:, :3].tolist()
        points = [1 / (1 + best.index(t)) if t in best else 0 for best, t in zip(place, targets[val], strict=True)]
        assert mlflow.get_run(record.run_id).data.metrics["val_map3"] == pytest.approx(np.mean(points))

        submission = table(record.run_id, "predictions/submission.csv")
        assert submission["fname"].tolist() == test_names
        assert submission["label"][0] == " ".join(labels[j] for j in test[0].argsort()[::-1][:3])
    assert held_out.tolist() == [1] * len(given)


def test_parallel_folds_equal_sequential_ones(study, source, monkeypatch):
    """Bit for bit; each fold runs in its own process, nested in one cross_validate run."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "side by side")
    both = cross_validate(source, tiny(), Launch(parallel_folds="2"))
    assert [record.fold for record in both] == [0, 1]
    assert not {record.run_id for record in both} & {record.run_id for record in study}
    assert {record.study for record in both} == {record.study for record in study}
    parents = {mlflow.get_run(record.run_id).data.tags["mlflow.parentRunId"] for record in both}
    assert [mlflow.get_run(parent).data.tags["fsat.stage"] for parent in parents] == ["cross_validate"]
    assert [predictions(record.run_id) for record in both] == [predictions(record.run_id) for record in study]


def test_the_blend_is_out_of_fold_and_the_geometric_mean(study, blended, data):
    expected = np.zeros_like(array(study[0].run_id, "train"))
    for record in study:
        val = (table(record.run_id, "predictions/clips.csv").query("split != 'test'")["split"] == "val").to_numpy()
        expected[val] = array(record.run_id, "train")[val]
    np.testing.assert_allclose(array(blended.run_id, "oof"), expected, rtol=1e-5, atol=1e-30)
    mean = gmean([array(record.run_id, "test").astype(np.float64) for record in study], axis=0)
    mean /= mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(array(blended.run_id, "test"), mean, rtol=1e-4, atol=1e-7)
    metrics = mlflow.get_run(blended.run_id).data.metrics
    given = table(study[0].run_id, "predictions/clips.csv").query("split != 'test'")
    is_right = expected.argmax(axis=1) == given["label"].map(sorted(set(given["label"])).index).to_numpy()
    assert metrics["oof_acc"] == pytest.approx(is_right.mean())
    assert metrics["oof_ece"] == pytest.approx(reliability(expected.max(axis=1), is_right).expected_error)
    scores = table(blended.run_id, "scores.csv")
    assert scores["kind"].tolist() == ["member", "member", "study", "blend", "blend", "blend"]
    assert scores["method"].tolist()[3:] == list(BLENDS)
    assert scores["map3"].iloc[3] == pytest.approx(metrics["oof_map3"])
    assert scores["map3"].iloc[3] == scores["map3"].iloc[5]  # one study: its weight is 1
    assert set(table(blended.run_id, "reports/suspects.csv")["fname"]) == set(given["fname"][~is_right])
    names = {f"reports/{name}.csv" for name in ("classes", "confusion", "confused_pairs", "calibration", "suspects")}
    names |= {"plots/calibration.png", "predictions/submission.csv", "predictions/clips.csv", "members.json"}
    assert names <= names_of(blended.run_id)
    assert "weights.json" not in names_of(blended.run_id)


def test_the_registered_tagger_gives_the_scores_that_were_logged(blended, data):
    assert blended.registered.promoted
    model = mlflow.pyfunc.load_model("models:/tones@champion")
    logged = model.get_raw_model().scaling.apply(array(blended.run_id, "test"))
    names = pd.read_csv(data / "sample_submission.csv")["fname"].tolist()
    rows = pd.DataFrame({"audio": [(data / "audio_test" / name).read_bytes() for name in names]})
    tags = model.predict(rows, params={"top_k": 2})
    labels = json.loads((artifacts(blended.run_id) / "labels.json").read_text())
    for i in range(5):
        order = np.argsort(-logged[i], kind="stable")[:2]
        assert tags["labels"][i] == [labels[j] for j in order]
        np.testing.assert_allclose(tags["scores"][i], logged[i][order], atol=1e-6)
    assert tags["error"].tolist() == [""] * 5 + ["empty file"]
    assert tags["labels"][5] == []


def test_runs_have_names_and_descriptions(study, blended):
    client = mlflow.MlflowClient()
    folds = [record.run for record in study]
    assert [run.info.run_name for run in folds] == ["conv1d fold 0 on tones", "conv1d fold 1 on tones"]
    for run in folds:
        score = f"**conv1d, fold {run.data.tags['fsat.fold']}**: `val_map3` **{run.data.metrics['val_map3']:.4f}**"
        assert run.data.tags["mlflow.note.content"].startswith(score)
    parent = client.get_run(folds[0].data.tags["mlflow.parentRunId"])
    assert len({run.data.tags["mlflow.runColor"] for run in [parent, *folds]}) == 1
    mean = f"**conv1d**: `mean_val_map3` **{parent.data.metrics['mean_val_map3']:.4f}**"
    assert parent.data.tags["mlflow.note.content"].startswith(mean)
    made = client.get_run(blended.run_id)
    assert made.info.run_name == "ensemble of conv1d on tones"
    assert made.data.tags["mlflow.note.content"].startswith(blended.registered.outcome)
    version = client.get_model_version("tones", str(blended.registered.version))
    assert f"**{made.data.metrics['oof_map3']:.4f}**" in version.description
    tags = client.get_experiment("0").tags
    assert "fsat-2" in tags["mlflow.note.content"]
    assert "mlflow.sharedViewState.fsat-2" in tags


@pytest.fixture(scope="module")
def others(study, source):
    """Both folds of a conv2d_mfcc study of the same clips."""
    options = {"sampling_rate": 16000, "audio_duration": 0.5, "n_mfcc": 16, "max_epochs": 2}
    return cross_validate(source, tiny(model="conv2d_mfcc", **options))


@pytest.mark.parametrize("method", ["arithmetic", "weighted"])  # the trained study's ensemble is geometric
def test_a_blend_of_two_rates_and_features_and_its_tagger(study, others, data, method):
    both = [study[0].study, others[0].study]
    made = ensemble(studies=both, register_as=method, blend=method)
    run, logged = mlflow.get_run(made.run_id), array(made.run_id, "test")
    assert run.data.params["blend"] == method
    version = mlflow.artifacts.download_artifacts(f"models:/{method}/{made.registered.version}")
    facts = json.loads(Path(version, "data", "tagger", "tagger.json").read_text())
    assert facts["blend"] == method
    if method == "weighted":
        weights = json.loads((artifacts(made.run_id) / "weights.json").read_text())
        assert list(weights) == both
        assert sum(weights.values()) == pytest.approx(1)
        assert facts["study_weights"] == weights
        assert {name: run.data.metrics[f"weight_{name}"] for name in weights} == weights
    row = made.scores[made.scores["method"] == method].iloc[0]
    assert run.data.metrics["oof_map3"] == pytest.approx(row["map3"])
    clips = sorted((data / "audio_test").glob("test_*.wav"))
    tagger = Tagger(Path(version, "data", "tagger"))
    np.testing.assert_allclose(tagger.scores(clips)[0], tagger.scaling.apply(logged[:5]), atol=1e-6)


def test_the_best_of_the_studies_and_their_blend_is_registered(study, others, source, capsys):
    result = ensemble_best([study, others], "best", "auto", "geometric", source.data_dir)
    both = [study[0].study, others[0].study]
    assert result.candidates["study"].tolist() == [*both, "+".join(both)]
    best = result.candidates.loc[result.candidates["map3"].idxmax()]
    run = mlflow.get_run(result.run_id)
    assert run.data.tags["fsat.studies"] == best["study"].replace("+", ",")
    assert run.data.metrics["oof_map3"] == best["map3"]
    assert f"blending {best['model']}, the best by OOF mAP@3" in capsys.readouterr().err
    assert {"predictions/oof.npy", "predictions/test.npy"} <= names_of(result.run_id)
    assert "predictions/best.npy" not in names_of(result.run_id)


def tagger(folder: Path, *written: object) -> Tagger:
    folder.mkdir()
    write(folder, *written)
    return Tagger(folder)


def test_a_study_of_weight_0_is_not_part_of_the_tagger(study, others, data, tmp_path):
    members = [download(record, tmp_path / "members") for record in (*study, *others)]
    files = [MemberFiles(m.record.study, m.record.fold, m.record.config, m.weights) for m in members]
    weights = {study[0].study: 1.0, others[0].study: 0.0}
    both = tagger(tmp_path / "both", files, members[0].labels, "weighted", weights)
    alone = tagger(tmp_path / "alone", files[:2], members[0].labels)
    assert len(list((tmp_path / "both").glob("*.weights.h5"))) == 2
    clips = sorted((data / "audio_train").iterdir())[:3]
    assert both.scores(clips)[0].tolist() == alone.scores(clips)[0].tolist()


def test_members_keep_their_crop_lengths(others, data, tmp_path):
    """Crops of 0.5 and 0.505 s have the same number of frames, 16, and differ."""
    member = download(others[0], tmp_path / "members")
    configs = {name: replace(member.record.config, audio_duration=s) for name, s in (("short", 0.5), ("long", 0.505))}
    files = [MemberFiles(name, 0, config, member.weights) for name, config in configs.items()]
    labels = sorted(pd.read_csv(data / "train.csv")["label"].unique())
    clips = sorted((data / "audio_train").iterdir())[:3]
    parts = {"both": files, "short": files[:1], "long": files[1:]}
    both, short, long = (tagger(tmp_path / name, some, labels).scores(clips)[0] for name, some in parts.items())
    assert np.abs(short - long).max() > 1e-4
    expected = gmean([short, long], axis=0)
    np.testing.assert_allclose(both, expected / expected.sum(axis=1, keepdims=True), rtol=1e-4)


def copy_of(record: FoldRun, study: str, **changes) -> str:
    """Copy a fold run as one of another study."""
    return copy_run(record.run_id, tags={"fsat.study": study, **changes.pop("tags", {})}, **changes)


def test_newest_complete_study_is_the_default(study, blended, capsys):
    for i in range(2):  # a newer study, once complete and once without a fold
        for record in study[i:]:
            copy_of(record, f"newer{i}", params={"model": "dummy1d"})
    made = ensemble()
    assert "newer is study newer1 (dummy1d on tones), which lacks fold 0 of 2" in capsys.readouterr().err
    assert mlflow.get_run(made.run_id).data.tags["fsat.studies"] == "newer0"
    assert len(json.loads((artifacts(made.run_id) / "members.json").read_text())) == 2


def test_fold_runs_that_do_not_belong_together_are_refused(study, data):
    run_ids = [record.run_id for record in study]

    def refusal(**arguments) -> str:
        with pytest.raises(RunError) as caught:
            ensemble(register_as="refused", **arguments)
        return one_line(caught.value)

    assert "no run 0123abcd" in refusal(run_ids=["0123abcd"])
    parent = mlflow.get_run(run_ids[0]).data.tags["mlflow.parentRunId"]
    assert "stage cross_validate; expected fold runs" in refusal(run_ids=[parent])
    missing = refusal(run_ids=run_ids[:1])
    assert "lacks fold 1 of 2" in missing
    assert f"mlflow run . -e cross_validate -P data_dir={data}" in missing
    assert "-P max_epochs=15" in missing
    assert "are both fold 0" in refusal(run_ids=[*run_ids, copy_run(run_ids[0])])
    assert "no study nowhere" in refusal(studies=["nowhere"])
    assert "no study a'b" in refusal(studies=["a'b"])
    assert "both given" in refusal(run_ids=run_ids, studies=["x"])
    with pytest.raises(ConfigError, match="blend=median: expected one of geometric, arithmetic, weighted"):
        ensemble(run_ids=run_ids, blend="median")

    elsewhere = [copy_of(record, "elsewhere", tags={"fsat.dataset": "another"}) for record in study]
    assert "disagrees with run" in refusal(run_ids=[*run_ids, *elsewhere])
    assert "lacks fold 1 of 2" in refusal(run_ids=[*run_ids, elsewhere[0]])

    crosswise = [run_ids[0], copy_of(study[1], "crosswise")]
    message = refusal(run_ids=crosswise, allow_incomplete=True)
    assert "no training clip is held out by a member of every study" in message
    mlflow.MlflowClient().delete_run(crosswise[1])
    assert f"run {crosswise[1]} is deleted" in refusal(run_ids=crosswise, allow_incomplete=True)
    failed = copy_of(study[1], "failed", status="FAILED")
    assert f"run {failed} is FAILED" in refusal(run_ids=[failed])
    with pytest.raises(mlflow.exceptions.MlflowException):
        mlflow.MlflowClient().get_registered_model("refused")


def test_folds_of_different_splits_are_named(study):
    """Fold 1 of another split holds out clips of fold 0, as if another version of scikit-learn had drawn it."""
    run_ids = [copy_of(record, "mixed") for record in study]
    path = artifacts(run_ids[1]) / "predictions" / "clips.csv"
    lines = path.read_text().splitlines(keepends=True)
    rows = [i for i, line in enumerate(lines) if ",val," in line]

    def refusal(lines: list[str]) -> str:
        write_artifact(run_ids[1], "predictions/clips.csv", "".join(lines).encode())
        with pytest.raises(RunError) as caught:
            ensemble(run_ids=run_ids)
        return one_line(caught.value)

    other = {",val,": ",train,", ",train,": ",val,"}
    shifted = [re.sub(",(val|train),", lambda match: other[match[0]], line) for line in lines]
    first = lines[next(i for i, line in enumerate(lines) if ",train," in line)].partition(",")[0]
    both = f"run {run_ids[0]} (fold 0) and run {run_ids[1]} (fold 1) both hold out {first} and 11 other clips"
    cause = "its folds come from different splits, such as those of two versions of scikit-learn"
    assert refusal(shifted) == f"study mixed: {both}; {cause}: train fold 1 again with resume=false"
    name = lines[rows[0]].partition(",")[0]
    lines[rows[0]] = lines[rows[0]].replace(",val,", ",train,")
    assert refusal(lines).startswith(f"study mixed: none of its folds holds out {name}; {cause}")


def test_scores_of_folds_that_split_recordings_carry_a_mark(trained_store, tmp_path, capsys):
    folder = make_dataset(tmp_path / "data", clips_per_class=4, test_clips=0, unverified=0.5)
    rows = [row.split(",") for row in (folder / "train.csv").read_text().splitlines()[1:]]
    lines = [f"{','.join(row)},{i // 3 % 2},{i // 6}" for i, row in enumerate(rows)]
    (folder / "train.csv").write_text("\n".join(["fname,label,manually_verified,fold,freesound_id", *lines, ""]))
    leak = "12 of 12 clips: 2 recordings are in several folds"
    records = cross_validate(Source(folder), tiny(max_epochs=1, folds="auto"))
    assert [record.leak for record in records] == [leak, leak]
    messages = capsys.readouterr().err
    assert f"warning: {leak}, so that models are scored on what they have trained on; use folds=stratified" in messages
    assert messages.count(f"; these are too high ({leak})") == 3
    result = CliRunner().invoke(cli, ["ensemble", "--studies", records[0].study, "--register_as", "leaky"])
    assert result.exit_code == 0, result.output
    assert result.stdout.partition("ensemble run")[0].count("12 of 12 clips") == 6
    assert f"(too high: {leak})" in result.stdout
    version = mlflow.MlflowClient().get_model_version_by_alias("leaky", "champion")
    (run_id,) = re.findall(r"^ensemble run (\w+)$", result.stdout, re.MULTILINE)
    tags = mlflow.get_run(run_id).data.tags
    assert tags["fsat.leak"] == version.tags["fsat.leak"] == leak
    parent = mlflow.get_run(records[0].run.data.tags["mlflow.parentRunId"]).data.tags
    descriptions = [each["mlflow.note.content"] for each in (tags, parent, records[0].run.data.tags)]
    for text in (*descriptions, version.description):
        assert f"**The scores are too high**: {leak}." in text
        assert "fair" not in text
    assert f"These scores are too high ({leak})." in (artifacts(run_id) / "report.html").read_text()
    assert set(table(run_id, "scores.csv")["leak"]) == {"12 of 12 clips"}
    assert leak in verify(studies=[records[0].study]).warning
    report = run_descriptions.main(folder, ["conv1d"], result_rows(run_id), "It is registered", "view")
    assert "**The scores are too high**: models know 12 of 12 clips, or clips of the same sounds." in report


def result_rows(run_id: str) -> list[dict]:
    return table(run_id, "scores.csv").tail(1).astype({"map3_verified": float}).to_dict("records")


def test_an_incomplete_study_only_if_allowed(study):
    made = ensemble(run_ids=[study[0].run_id], register_as="half", allow_incomplete=True)
    assert np.isnan(array(made.run_id, "oof")).any(axis=1).sum() == 12
    assert table(made.run_id, "scores.csv")["clips"].tolist() == [12] * 5
    assert [table(made.run_id, f"reports/{name}.csv")["clips"].sum() for name in ("classes", "calibration")] == [12, 12]
    assert mlflow.get_run(made.run_id).info.status == "FINISHED"
    version = mlflow.MlflowClient().get_model_version_by_alias("half", "champion")
    assert version.tags["fsat.oof_clips"] == "12"


def test_main_without_test_clips_tags_the_training_clips(trained_store, tmp_path, capsys):
    """Classes that are digits, without a gap in any column of the runs' tables, are texts all the same."""
    folder = make_dataset(tmp_path / "plain", classes=("01", "1", "2"), clips_per_class=4, test_clips=0, unverified=0.5)
    (folder / "audio_test").mkdir()
    config = tiny(model="dummy1d", max_epochs=2)
    report = main(Source(folder), [config], "plain", "auto", tmp_path / "tags.csv", blend="arithmetic")
    newest = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'ensemble'", max_results=1, output_format="list")
    run_id = newest[0].info.run_id
    assert newest[0].data.params["blend"] == "arithmetic"
    assert table(run_id, "reports/classes.csv")["clips"].tolist() == [4, 4, 4]
    assert 0 <= newest[0].data.metrics["oof_map3_verified"] <= 1
    assert "12 training clips of 3 classes, 6 of them verified" in (artifacts(run_id) / "report.html").read_text()
    messages = capsys.readouterr().err
    assert "blending dummy1d, the best by OOF mAP@3" in messages
    assert "its training clips are tagged, which the models have seen" in messages
    assert verify(studies=[newest[0].data.tags["fsat.studies"]]).counts["verified"] == 6
    assert len(pd.read_csv(tmp_path / "tags.csv")) == 12
    assert "plain version 1 is now champion" in report
    with pytest.raises(FsatError, match="is a folder"):
        main(Source(folder), [config], "plain", "auto", tmp_path)


def test_a_config_is_read_back_from_a_run_as_it_was_settled(source, monkeypatch):
    """`mlflow run -P folds=auto -P learning_rate=1e-3` has logged both as typed before fsat starts."""
    mlflow.end_run()
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    typed = {"folds": "auto", "learning_rate": "1e-3", "model": "dummy1d", "max_epochs": "1", "precision": "auto"}
    for name, text in typed.items():
        mlflow.MlflowClient().log_param(run_id, name, text)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert train_fold(source, tiny(**typed), 0) == run_id
    (record,) = by_run_ids([run_id])
    assert record.config == tiny(model="dummy1d", learning_rate=1e-3, folds="column", max_epochs=1)
    assert json.loads((artifacts(run_id) / "config.json").read_text()) == record.config.to_dict()


def test_mfcc_are_standardised_by_the_training_clips_alone(others, data):
    model = build(others[0].config, 3)
    model.load_weights(artifacts(others[0].run_id) / "weights/best.weights.h5")
    clips = table(others[0].run_id, "predictions/clips.csv")
    decoded = [decode(data / "audio_train" / name, 16000) for name in clips["fname"][clips["split"] == "train"]]
    crops = [np.pad(x, ((8000 - len(x)) // 2, 8000 - len(x) - (8000 - len(x)) // 2)) for x in decoded]
    expected = np.concatenate([librosa.feature.mfcc(y=crop, sr=16000, n_mfcc=16) for crop in crops], axis=1)
    layer = model.get_layer("standardise")
    np.testing.assert_allclose(np.ravel(layer.mean), expected.mean(axis=1), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(np.ravel(layer.variance), expected.var(axis=1), rtol=1e-2)


@pytest.mark.parametrize(
    ("register_as", "promote", "output", "options", "message"),
    [
        ("team/birds", "auto", "tags.csv", {}, "register_as=team/birds: it has / in it"),
        ("tones", "sometimes", "tags.csv", {}, "promote=sometimes: expected one of auto, always, never"),
        ("tones", "auto", "tags.xlsx", {}, "expected a name that ends in .csv"),
        ("tones", "auto", "tags.csv", {"labels_run_id": "0123abcd"}, "labels_run_id=0123abcd: no such run"),
    ],
)
def test_main_checks_its_options_before_it_works(
    trained_store, source, tmp_path, register_as, promote, output, options, message
):
    before = mlflow.search_runs(output_format="list")
    with pytest.raises(FsatError) as caught:
        main(source, [tiny(**options)], register_as, promote, tmp_path / output)
    assert message in one_line(caught.value)
    assert len(mlflow.search_runs(output_format="list")) == len(before)
    if not options and output == "tags.csv":
        with pytest.raises(FsatError, match=r"register_as=|promote="):
            ensemble(register_as=register_as, promote=promote)


def test_an_artifact_location_that_cannot_be_written_is_an_error_first(trained_store, source, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        experiment = mlflow.create_experiment("closed", str(tmp_path / "file" / "artifacts"))
        patch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        patch.setattr("fsat.commands.train.prepare_dataset", None)
        with pytest.raises(RunError) as caught:
            train_fold(source, tiny(), 0)
    assert one_line(caught.value).startswith(f"the artifact folder {tmp_path}/file cannot be written")
    assert "make it writable" in str(caught.value)


def test_the_artifact_store_is_written_to_before_the_training(trained_store, source, monkeypatch):
    def fail(*_: object) -> None:
        raise RunError("here the training would begin")

    monkeypatch.setattr("fsat.training.fold.train_fold", fail)
    with pytest.raises(RunError, match="here the training would begin"):
        train_fold(source, tiny(seed=5), 0)
    (run,) = mlflow.search_runs(filter_string="status = 'FAILED'", max_results=1, output_format="list")
    assert Config.from_mapping(json.loads((artifacts(run.info.run_id) / "config.json").read_text())).seed == 5


def test_folds_of_another_recipe_are_not_blended(study):
    run_ids = [copy_run(record.run_id, tags={"fsat.recipe": "1", "fsat.study": "older"}) for record in study]
    with pytest.raises(RunError, match=f"run {run_ids[0]} was made by another version of fsat; train its fold again"):
        ensemble(run_ids=run_ids)
    with pytest.raises(RunError, match="no study older with FINISHED fold runs of this version of fsat"):
        ensemble(studies=["older"])


def test_eda_and_training_name_the_excluded_clips(trained_store, tmp_path, capsys):
    folder = make_dataset(tmp_path / "holes", clips_per_class=6, test_clips=0)
    names = pd.read_csv(folder / "train.csv")["fname"]
    for name in names[:5]:
        (folder / "audio_train" / name).write_bytes(b"")
    eda(Source(folder, on_bad_clip="exclude"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "excluded" in line]
    first = "; ".join(f"train.csv:{i + 2}: {names[i]}: empty file" for i in range(3))
    assert line == f"warning: 5 training rows excluded (on_bad_clip=exclude): {first}; and 2 more"
    assert line in load_dataset(folder, tiny(), "exclude").summary()


def test_exclusions_are_logged_as_a_table(trained_store, tmp_path):
    folder = make_dataset(tmp_path / "holes", clips_per_class=6, test_clips=2)
    dummy = tiny(model="dummy1d", max_epochs=1)
    names = pd.read_csv(folder / "train.csv")["fname"]
    (folder / "audio_train" / names[4]).write_bytes(b"")
    write_wav(folder / "audio_train" / names[7], np.full(4000, np.nan, np.float32), subtype="FLOAT")
    with pytest.raises(DataError, match="1 problem"):  # headers first: decoding finds more when they are fixed
        train_fold(Source(folder), dummy, 0)
    run_id = train_fold(Source(folder, on_bad_clip="exclude"), dummy, 0)
    excluded = table(run_id, "exclusions.csv")[["row", "fname", "split", "reason"]].to_numpy().tolist()
    reasons = {6: "empty file", 9: "NaN or infinite samples"}
    assert excluded == [[row, names[row - 2], "train", reason] for row, reason in reasons.items()]
    assert array(run_id, "train").shape == (16, 3)
    assert not {names[4], names[7]} & set(table(run_id, "predictions/clips.csv")["fname"])
