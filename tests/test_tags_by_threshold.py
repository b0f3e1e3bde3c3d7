"""Taggers that give a sound any number of labels: clips, recordings, segments, evaluation, and their files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import CLASSES, error_line, read_csv, tone, write_wav
from taggers import PLATT, SEVERAL, THRESHOLDS, register_tagger, write_tagger

from fsat.cli import cli
from fsat.commands.predict import predict
from fsat.errors import RunError
from fsat.metrics.evaluation import Evaluation, TaggedRecording, metrics_of
from fsat.metrics.sound_events import Event
from fsat.options import SegmentOptions, TableOptions, TagSettings
from fsat.tagging import Tagger
from fsat.tagging.tagger_folder import read_facts
from fsat.tracking.registry import open_tagger

pytestmark = pytest.mark.slow

RATE = 8000
TONES = (300, 350, 400, 450, 700, 900)


@pytest.fixture(scope="module")
def tagger(store) -> Tagger:
    """The champion, with scaled scores and thresholds."""
    register_tagger(write_tagger(store / "tagger", [SEVERAL], scaling=PLATT, thresholds=THRESHOLDS))
    return open_tagger("models:/fsat@champion")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Tones, silence, a file that is cut off, and one that is no sound."""
    folder = tmp_path_factory.mktemp("clips")
    for frequency in TONES:
        write_wav(folder / f"{frequency:04d}.wav", tone(frequency, 0.5, RATE), RATE)
    write_wav(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "text.wav").write_text("no sound")
    whole = write_wav(folder / "cut.wav", tone(900, 1.0, RATE), RATE)
    whole.write_bytes(whole.read_bytes()[:9000])
    return folder


def expected_tags(tagger: Tagger, clips: Path, minimum=THRESHOLDS) -> dict[str, list[tuple[str, float]]]:
    """The labels of each clip that reach a minimum, best first, and their scores."""
    names = sorted(path.name for path in clips.iterdir())
    scores, _ = tagger.scores([clips / name for name in names])
    enough = scores >= np.float32(minimum)
    return {name: [(tagger.labels[j], float(row[j])) for j in np.argsort(-row) if ok[j]]
            for name, row, ok in zip(names, scores, enough, strict=True)}  # fmt: skip


def test_a_clip_gets_the_labels_above_their_thresholds(tagger, clips, tmp_path, capsys) -> None:
    expected = expected_tags(tagger, clips)
    assert {len(expected[f"{frequency:04d}.wav"]) for frequency in TONES} == {0, 1, 2}
    predict(str(clips), tmp_path / "tags.csv", "champion")
    n_without = sum(not tags for tags in expected.values()) - 2  # one is silent and one is no sound
    tagged = f"{len(expected) - 1} of {len(expected)} files tagged by models:/fsat/1"
    assert f"{tagged}, {n_without} of them without a label; table in " in capsys.readouterr().err
    table = read_csv(tmp_path / "tags.csv")
    assert list(table[0]) == ["fname", "label", "score", "label_2", "score_2", "error", "note"]  # as many as are needed
    for row in table:
        pairs = [(row[f"label{end}"], row[f"score{end}"]) for end in ("", "_2") if row[f"label{end}"]]
        assert pairs == [(label, f"{score:.6f}") for label, score in expected[row["fname"]]]
        heard = row["fname"] not in ("silent.wav", "text.wav")
        assert ("no label" in row["note"].split("; ")) == (heard and not pairs)
    notes = {row["fname"]: (row["error"], row["note"]) for row in table}
    assert (notes["0900.wav"], notes["silent.wav"]) == (("", "no label"), ("", "silent"))
    assert notes["cut.wav"][0].startswith("cut off")
    assert notes["cut.wav"][1] == "no label"
    run = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'predict'", output_format="list")[0]
    assert (run.data.metrics["n_without"], run.data.metrics["n_failed"]) == (n_without, 1)
    assert f"No label for {n_without} files" in run.data.tags["mlflow.note.content"]


def test_a_number_or_a_maximum_in_place_of_the_thresholds(tagger, clips, tmp_path) -> None:
    """0 gives the scores of all classes, as the table of the best does for other taggers."""
    predict(str(clips), tmp_path / "all.parquet", "champion", TagSettings(min_score=0))
    predict(str(clips), tmp_path / "one.jsonl", "champion", TagSettings(top_k=1), table=TableOptions(long=True))
    expected = expected_tags(tagger, clips, (0, 0, 0))
    for row in pd.read_parquet(tmp_path / "all.parquet").itertuples():
        assert list(row.labels) == [label for label, _ in expected[row.fname]]
        np.testing.assert_allclose(row.scores, [score for _, score in expected[row.fname]], atol=1e-6)
        assert len(row.labels) == (0 if row.fname in ("silent.wav", "text.wav") else 3)
    above = expected_tags(tagger, clips)
    for row in map(json.loads, (tmp_path / "one.jsonl").read_text().splitlines()):
        assert (row["label"], row["rank"]) == ((above[row["fname"]][0][0], 1) if above[row["fname"]] else ("", None))


def test_members_keep_the_scaling_and_the_thresholds(tagger, clips) -> None:
    one = tagger.only("1")
    assert (one.scaling, one.thresholds.tolist()) == (PLATT, np.float32(THRESHOLDS).tolist())
    unscaled = Tagger(Path(mlflow.artifacts.download_artifacts("models:/fsat/1")) / "data/tagger").only("1")
    unscaled.scaling = type(PLATT)()
    path = clips / "0350.wav"
    np.testing.assert_array_equal(one.scores([path])[0], PLATT.apply(unscaled.scores([path])[0]))


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Path:
    """A recording: tones of 3 s each, of one label, two, none and one, then silence; and one of no label."""
    folder = tmp_path_factory.mktemp("day")
    parts = [tone(frequency, 3, RATE) for frequency in (300, 350, 900, 450)]
    write_wav(folder / "day.wav", np.concatenate([*parts, np.zeros(3 * RATE, np.float32)]), RATE)
    write_wav(folder / "none.wav", tone(900, 3, RATE), RATE)
    return folder


def test_tags_over_time_overlap_and_are_evaluated_and_cut_out(tagger, day, tmp_path, capsys) -> None:
    settings = TagSettings(window=1)
    predict(str(day), tmp_path / "tags.csv", "champion", settings, label_tracks=tmp_path / "tracks",
            raven_tables=tmp_path / "raven")  # fmt: skip
    rows = pd.read_csv(tmp_path / "tags.csv", keep_default_na=False)
    assert rows[rows["fname"] == "none.wav"].values.tolist() == [["none.wav", "", "", "", "", "", "no label"]]
    tags = rows[rows["label"] != ""]
    assert tags[["start", "end", "label"]].values.tolist() == [
        ["0.000", "6.000", "Bell"], ["3.000", "6.000", "Cello"], ["9.000", "12.000", "Cello"],
    ]  # fmt: skip
    assert rows[rows["note"] == "silent"][["start", "end"]].values.tolist() == [["12.000", "15.000"]]
    track = [line.split("\t") for line in (tmp_path / "tracks/day.wav.txt").read_text().splitlines()]
    assert [(float(start), label) for start, _, label in track] == [(0, "Bell"), (3, "Cello"), (9, "Cello")]
    assert (tmp_path / "tracks/none.wav.txt").read_text() == ""
    raven = pd.read_csv(tmp_path / "raven/day.Table.1.selections.txt", sep="\t")
    assert (raven["Selection"].tolist(), raven["Annotation"].tolist()) == ([1, 2, 3], ["Bell", "Cello", "Cello"])

    from fsat.commands.segments import segments

    segments(tmp_path / "tags.csv", str(day), tmp_path / "cut", SegmentOptions(per_class=1))
    assert sorted(path.parent.name for path in (tmp_path / "cut").rglob("*.wav")) == ["Bell", "Cello"]

    tracks = tmp_path / "labels"
    shutil.copytree(tmp_path / "tracks", tracks)
    (tracks / "day.wav.txt").write_text("0\t6\tBell\n3\t6\tCello\n")
    capsys.readouterr()
    result = CliRunner().invoke(cli, ["evaluate", "--input", str(day), "--annotations", str(tracks), "--window", "1",
                                      "--output", str(tmp_path / "evaluation")])  # fmt: skip
    assert result.exit_code == 0, result.output
    run = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'evaluate'", output_format="list")[0]
    metrics = run.data.metrics
    assert (metrics["n_tags"], metrics["segment_recall"]) == (3, 1)  # those of predict
    assert metrics["unannotated_hours"] == pytest.approx(12 / 3600)
    assert metrics["false_alarms_per_hour"] == pytest.approx(1 / (12 / 3600))
    assert metrics["unannotated_tagged"] == pytest.approx(3 / 12)
    assert "300 false alarms an hour where nothing is annotated; 25.0 % of it has a tag" in result.output
    assert "-P window=1 -P hop=1` uses them in place of the tagger's own" in result.output
    classes = pd.read_csv(tmp_path / "evaluation/tables/classes.csv").set_index("label")
    assert classes["false_alarms_per_hour"].to_dict() == {"Bell": 0, "Cello": pytest.approx(300)}
    page = (tmp_path / "evaluation/evaluation.html").read_text()
    assert re.search(r"there are\s+300 false alarms an hour, and 25.0 % of\s+the time has a tag", page)

    chosen = json.loads((tmp_path / "evaluation/thresholds.json").read_text())  # they count for windows of that length
    predict(str(day), tmp_path / "again.csv", "champion", settings)
    minimum = [chosen["thresholds"].get(label, chosen["default"]) for label in CLASSES]
    given = {(row["fname"], row["label"]) for row in read_csv(tmp_path / "again.csv") if row["label"]}
    assert given == {
        (name, label) for name in ("day.wav", "none.wav") for _, _, row in tagger.over_time(day / name, 1, 1)
        for label, score, least in zip(CLASSES, row, minimum, strict=True) if score >= np.float32(least)
    }  # fmt: skip
    capsys.readouterr()
    predict(str(day), tmp_path / "other.csv", "champion", TagSettings(window=1.5))
    assert "scores with window=1.5 hop=1.5 may be others: the tagger's own are used" in capsys.readouterr().err


def test_alarms_of_an_hour_are_tags_that_overlap_no_annotation_of_any_class() -> None:
    def recording(name: str, *events: Event) -> TaggedRecording:
        return TaggedRecording(name, 100.0, events, np.array([[0, 100.0]]), np.array([0, 100.0]), np.ones((1, 2)))

    tags = {
        "a": [Event(0, 5, "x"), Event(5, 9, "y"), Event(18, 30, "x"), Event(50, 60, "x"), Event(55, 70, "y")],
        "b": [Event(90, 101, "y")],
    }
    recordings = [recording("a", Event(10, 20, "y"), Event(15, 25, "x"), Event(5, 8, "x")), recording("b")]
    evaluation = Evaluation(recordings, ["x", "y"], lambda item, _: tags[item.name])
    unannotated = evaluation.unannotated
    assert unannotated.seconds == 200 - 18
    assert unannotated.tagged == 5 + 1 + 5 + 20 + 10
    assert unannotated.alarms == {"x": 2, "y": 2}  # 0 to 5 touches an annotation, and does not overlap it
    assert unannotated.per_hour("y") == pytest.approx(2 * 3600 / 182)
    assert metrics_of(evaluation)["false_alarms_per_hour"] == pytest.approx(4 * 3600 / 182)


@pytest.mark.parametrize(("facts", "message"), [
    ({"thresholds": [0.5, 0.5]}, "thresholds are 2 numbers, expected one for each of 3 labels"),
    ({"thresholds": 0.5}, "thresholds are 0.5, expected one for each of 3 labels"),
    ({"thresholds": [0.5, 0.5, 1.5]}, "thresholds have 1.5, expected numbers from 0 to 1"),
    ({"thresholds": [0.5, 0.5, "0.5"]}, "thresholds have '0.5', expected numbers from 0 to 1"),
    ({"thresholds": [0.5, 0.5, float("nan")]}, "thresholds have nan, expected numbers from 0 to 1"),
    ({"scaling": {"kind": "isotonic"}}, "expected a kind of none, temperature, platt"),
    ({"scaling": None}, "scaling is None, expected a kind of none, temperature, platt"),
    ({"scaling": {"kind": "platt", "slopes": [1.0, 1.0], "offsets": [0.0, 0.0]}}, "has 2 slopes, expected 3"),
    ({"scaling": {"kind": "temperature", "temperature": 2.0}}, "the kind of the scaling is temperature, which is not"),
])  # fmt: skip
def test_wrong_facts_of_a_tagger_are_one_line(tagger, store, tmp_path, facts, message) -> None:
    stored = json.loads((store / "tagger/tagger.json").read_text())
    (tmp_path / "tagger.json").write_text(json.dumps(stored | facts))
    line = error_line(RunError, read_facts, tmp_path)
    assert line.startswith(str(tmp_path / "tagger.json"))
    assert message in line
    assert line.endswith("; register the tagger anew")
