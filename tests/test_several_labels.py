"""Data whose clips have several labels, or none: what is read as such, what is not, and what is said of faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import error_line, tone, write_wav
from layouts import lay_out, write_clips

from fsat.cli import cli
from fsat.data.dataset import inspect_dataset
from fsat.data.duplicates import contradictions
from fsat.data.folds import describe_unscored
from fsat.data.label_checks import class_warnings
from fsat.data.layouts.label_cells import labels_of, separator_of
from fsat.data.manifest import Manifest, read_manifest, why_one_label
from fsat.data.playable_clips import ClipFolder, Trained, find_clips
from fsat.errors import DataError
from fsat.layout_options import LayoutOptions


def read(folder: Path, on_bad_clip: str = "error", **options: object) -> Manifest:
    return read_manifest(folder, on_bad_clip, layout=LayoutOptions(**options))


def labels_by_clip(manifest: Manifest) -> dict[str, str]:
    """The label cell of each clip, by its name without folders and suffix."""
    rows = zip(manifest.train["fname"], manifest.train["label"], strict=True)
    return {fname.rpartition("/")[2].rpartition(".")[0]: label for fname, label in rows}


def faults(folder: Path, **options: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(folder, **options)
    return [str(problem) for problem in caught.value.problems]


CLIPS = "1.wav 2.wav 3.wav 4.wav"


def column(name: str, *cells: str, separator: str = ",", end: str = "\n") -> dict[str, str]:
    """A table of the clips 1, 2, ... with these cells in a column of labels."""
    lines = [f"file{separator}{name}", *(f"{i}.wav{separator}{cell}" for i, cell in enumerate(cells, 1))]
    return {"t.csv": end.join([*lines, ""])}


# --- what shows several labels by itself ------------------------------------------------------------

# name: the sounds, the tables, the layout, the label cells, and the end of how it was understood
SHOWN: dict[str, tuple[str, dict[str, str], str, dict[str, str], str]] = {
    "commas in a column labels": (
        CLIPS, column("labels", '"Dog,Rain"', "Dog", "", '"Rain,Owl"'),
        "table", {"1": "Dog,Rain", "2": "Dog", "3": "", "4": "Owl,Rain"}, "labels separated by ','",
    ),
    "a capital name, spaces and commas at the end": (
        CLIPS, column("Labels", '"Rain, Dog"', '"Dog,"', '"Owl , Dog ,"', '" Owl"'),
        "table", {"1": "Dog,Rain", "2": "Dog", "3": "Dog,Owl", "4": "Owl"}, "labels separated by ','",
    ),
    "a spreadsheet with semicolons": (
        CLIPS, column("Labels", "Dog,Rain", "Dog", "", "Rain,Dog", separator=";", end="\r\n"),
        "table", {"1": "Dog,Rain", "2": "Dog", "3": "", "4": "Dog,Rain"}, "labels separated by ','",
    ),
    "tabs, and semicolons in the cells": (
        CLIPS, {"weak.tsv": "filename\tevent_labels\n1.wav\tDog;Rain\n2.wav\tRain\n3.wav\t\n4.wav\tNaN\n"},
        "table", {"1": "Dog,Rain", "2": "Rain", "3": "", "4": ""}, "labels separated by ';'",
    ),
    "bars, and commas in labels": (
        CLIPS, column("tags", '"Chirp, tweet|Dog"', '"Chirp, tweet"', "Dog|Owl", "Owl"),
        "table", {"1": '"Chirp, tweet",Dog', "2": '"Chirp, tweet"', "3": "Dog,Owl", "4": "Owl"},
        "labels separated by '|'",
    ),
    "labels in quotes": (
        CLIPS, column("labels", '"""Chirp, tweet"",Dog"', '"""Chirp, tweet"""', '"Dog,Owl"', "Owl"),
        "table", {"1": '"Chirp, tweet",Dog', "2": '"Chirp, tweet"', "3": "Dog,Owl", "4": "Owl"},
        "labels separated by ','",
    ),
    "numbers": (
        CLIPS, column("labels", '"12,7"', "7", '"7, 30"', "12"),
        "table", {"1": "12,7", "2": "7", "3": "30,7", "4": "12"}, "labels separated by ','",
    ),
    "lists of Python": (
        CLIPS, column("label", "\"['Dog', 'Chirp, tweet']\"", "['Dog']", "[]", "\"('Dog', 'Owl')\""),
        "table", {"1": '"Chirp, tweet",Dog', "2": "Dog", "3": "", "4": "Dog,Owl"}, "lists of labels",
    ),
    "JSON lines of an audiofolder": (
        "data/1.wav data/2.wav data/3.wav data/4.wav",
        {"metadata.jsonl": "\n".join(json.dumps({"file_name": f"data/{i}.wav", "labels": labels}) for i, labels in
                                     enumerate((["Dog", "Chirp, tweet"], [], ["Dog"], None), 1))},
        "audiofolder", {"1": '"Chirp, tweet",Dog', "2": "", "3": "Dog", "4": ""}, "",
    ),
    "a column for each label": (
        CLIPS,
        {"t.csv": "file,Dog,Rain,no rain,x\n1.wav,1,1.0,0,a\n2.wav,TRUE,0,0,a\n3.wav,0,0,False,b\n4.wav,0,1,0,b\n"},
        "table", {"1": "Dog,Rain", "2": "Dog", "3": "", "4": "Rain"}, "a column of 0 and 1 for each label",
    ),
    "a row for each label": (
        CLIPS,
        {"t.csv": "file,label\n1.wav,Dog\n2,Dog\n1,Rain\n2,Owl\n3,Dog\n3,Rain\n3,Owl\n4,Dog\n"},
        "table", {"1": "Dog,Rain", "2": "Dog,Owl", "3": "Dog,Owl,Rain", "4": "Dog"},
        "one label each, 4 rows with further labels of clips",
    ),
    "AudioSet": (
        "-aBc.wav b_d.wav e.wav",
        {"eval_segments.csv": "# Segments csv created Sun Mar 5 10:54:25 2017\n# num_ytids=3, num_segs=3\n"
         '# YTID, start_seconds, end_seconds, positive_labels\n-aBc, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
         'b_d, 0.000, 10.000, "/m/09x0r"\ne, 5.000, 15.000, "/m/0dgw9r,/m/09x0r"\n'},
        "table", {"-aBc": "/m/09x0r,/t/dd00088", "b_d": "/m/09x0r", "e": "/m/09x0r,/m/0dgw9r"}, "",
    ),
    "OpenMIC": (
        "audio/000/000046_3840.wav audio/000/000135_483840.wav audio/000/000178_3840.wav",
        {"openmic-2018-aggregated-labels.csv": "sample_key,instrument,relevance,num_responses\n"
         "000046_3840,clarinet,0.17105,3\n000046_3840,flute,0.0,3\n000135_483840,flute,0.9,3\n"
         "000135_483840,clarinet,0.5,3\n000178_3840,flute,0.3,3\n000178_3840,clarinet,1.0,3\n"},
        "table", {"000046_3840": "", "000135_483840": "clarinet,flute", "000178_3840": "clarinet"},
        "one label each, 3 rows with further labels of clips, not those whose relevance is below 0.5",
    ),
    "FSDKaggle2019 at Kaggle": (
        "train_curated/0006ae4e.wav train_curated/0019ef41.wav train_noisy/00097e21.wav test/0026c7cb.wav",
        {
            "train_curated.csv": 'fname,labels\n0006ae4e.wav,Bark\n0019ef41.wav,"Bass_guitar,Fart"\n',
            "train_noisy.csv": "fname,labels\n00097e21.wav,Bathtub_(filling_or_washing)\n",
            "sample_submission.csv": "fname,Bark,Bass_guitar\n0026c7cb.wav,0,0\n",
        },
        "fsdkaggle2019",
        {"0006ae4e": "Bark", "0019ef41": "Bass_guitar,Fart", "00097e21": "Bathtub_(filling_or_washing)"},
        "train_curated.csv and train_noisy.csv: fname, labels; task=multi: labels separated by ','",
    ),
    "FSDKaggle2019 at Zenodo": (
        "FSDKaggle2019.audio_train_curated/1.wav FSDKaggle2019.audio_train_noisy/2.wav FSDKaggle2019.audio_test/3.wav",
        {
            "FSDKaggle2019.meta/train_curated_post_competition.csv":
                'fname,labels,freesound_id,license\n1.wav,"Bass_guitar,Fart",7,CC0\n',
            "FSDKaggle2019.meta/train_noisy_post_competition.csv":
                "fname,labels,flickr_video_URL,license\n2.wav,Fart,http://x,CC0\n",
            "FSDKaggle2019.meta/test_post_competition.csv":
                'fname,labels,usage,freesound_id,license\n3.wav,"Fart,Bark",Public,8,CC0\n',
            "FSDKaggle2019.meta/vocabulary.csv": "0,Bark\n1,Fart\n",
        },
        "fsdkaggle2019", {"1": "Bass_guitar,Fart", "2": "Fart"}, "",
    ),
    "FSD50K": (
        "FSD50K.dev_audio/64760.wav FSD50K.dev_audio/16399.wav FSD50K.dev_audio/16401.wav FSD50K.eval_audio/37199.wav",
        {
            "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n"
            '64760,"Electric_guitar,Guitar,Plucked_string_instrument,Musical_instrument,Music","/m/02sgy,/m/0342h",train\n'
            '16399,"Chirp_and_tweet,Bird_vocalization_and_bird_call_and_bird_song,Bird","/m/07pggtn",val\n16401,Music,/m/0,train\n',
            "FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Electric_guitar,Guitar","/m/02sgy,/m/0342h"\n',
            "FSD50K.ground_truth/vocabulary.csv": "0,Accelerating_and_revving_and_vroom,/m/07q2z82\n1,Music,/m/0\n",
        },
        "fsd50k",
        {"64760": "Electric_guitar,Guitar,Music,Musical_instrument,Plucked_string_instrument",
         "16399": "Bird,Bird_vocalization_and_bird_call_and_bird_song,Chirp_and_tweet", "16401": "Music"}, "",
    ),
    "a table of a challenge with a column for each label": (
        "audio_train/1.wav audio_train/2.wav audio_test/3.wav",
        {
            "train.csv": "fname,Dog,Rain,fold\n1.wav,1,1,1\n2.wav,0,1,2\n",
            "sample_submission.csv": "fname,Dog,Rain\n3.wav,0,0\n",
        },
        "fsdkaggle2018", {"1": "Dog,Rain", "2": "Rain"},
        "with audio_train/; task=multi: a column of 0 and 1 for each label",
    ),
    "a table of a challenge with its own column of lists": (
        "audio_train/1.wav audio_train/2.wav audio_train/3.wav audio_test/4.wav",
        {
            "train.csv": 'fname,labels,fold,freesound_id\n1.wav,"Dog,Rain",1,a\n2.wav,,2,b\n3.wav,Rain,2,b\n',
            "sample_submission.csv": "fname,Dog,Rain\n4.wav,0,0\n",
            "test_truth.csv": 'fname,labels\n4.wav,"Dog,Rain"\n',
        },
        "fsdkaggle2018", {"1": "Dog,Rain", "2": "", "3": "Rain"},
        "train.csv with audio_train/; task=multi: labels separated by ','",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_several_labels_are_read_from_what_shows_them(name: str, tmp_path: Path) -> None:
    audio, tables, layout, labels, reading = SHOWN[name]
    lay_out(tmp_path / "data", audio, tables)
    manifest = read(tmp_path / "data")
    assert (manifest.task, manifest.layout[0]) == ("multi", layout)
    assert labels_by_clip(manifest) == labels
    assert manifest.layout[1].endswith(reading)
    n_none, n_several = (sum(test(cell) for cell in labels.values()) for test in (lambda c: not c, lambda c: "," in c))
    if not any('"' in cell for cell in labels.values()):
        assert f", {n_none} without a label, {n_several} with several; layout={layout}: " in manifest.describe()
    table = tmp_path / "clips.csv"
    result = CliRunner().invoke(cli, ["manifest", str(tmp_path / "data"), "-o", str(table)])
    assert result.exit_code == 0, result.output
    assert result.output.endswith("an empty cell in its column labels is no label; read it with task=multi\n")
    again = read(tmp_path / "data", table=str(table), task="multi")
    assert (again.digest, again.labels) == (manifest.digest, manifest.labels)
    assert (again.train["manually_verified"].sum(), len(again.test)) == (manifest.verified.sum(), len(manifest.test))


def test_folds_groups_verification_and_test_clips_of_challenges(tmp_path: Path) -> None:
    for name in ("FSDKaggle2019 at Kaggle", "FSD50K", "a table of a challenge with its own column of lists"):
        lay_out(tmp_path / name, *SHOWN[name][:2])
    manifest = read(tmp_path / "FSDKaggle2019 at Kaggle")
    assert manifest.train["manually_verified"].tolist() == [1, 1, 0]
    assert (manifest.test["fname"].tolist(), manifest.warnings) == (["0026c7cb.wav"], [])
    assert read(tmp_path / "FSD50K").test["fname"].tolist() == ["37199.wav"]
    manifest = read(tmp_path / "a table of a challenge with its own column of lists")
    assert manifest.train[["fold", "group"]].to_numpy().tolist() == [["1", "a"], ["2", "b"], ["2", "b"]]
    assert (manifest.test["fname"].tolist(), manifest.warnings) == (["4.wav"], [])


# name: the sounds, the tables, and the labels, one for each clip
NOT_SHOWN: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "one label each in a column labels": (CLIPS, column("labels", "Dog", "Rain", "Dog", "Rain"), ["Dog", "Rain"] * 2),
    "names with commas": (
        CLIPS, column("labels", '"Chirp, tweet"', "Dog", '"Chirp, tweet"', '"Owl, cuckoo"'),
        ["Chirp, tweet", "Dog", "Chirp, tweet", "Owl, cuckoo"],
    ),
    "commas in a column label": (
        CLIPS, column("label", '"Dog,Rain"', "Dog", '"Dog,Rain"', "Owl"), ["Dog,Rain", "Dog", "Dog,Rain", "Owl"],
    ),
    "lists of one label each": (
        CLIPS, {"a.jsonl": "\n".join(json.dumps({"file": f"{i}.wav", "label": [label]}) for i, label in
                                     enumerate("abab", 1))},
        ["a", "b", "a", "b"],
    ),
    "one 1 in each row": (
        CLIPS, {"t.csv": "file,a,b\n1.wav,1,0\n2.wav,0,1\n3.wav,1,0\n4.wav,0,1\n"}, ["a", "b", "a", "b"],
    ),
    "a column of numbers beside the labels": (
        CLIPS, {"t.csv": "file,label,x,y\n1.wav,a,1,0\n2.wav,b,1,1\n3.wav,a,0,0\n4.wav,b,0,1\n"}, ["a", "b", "a", "b"],
    ),
    "numbers beside class folders": (
        "a/1.wav b/2.wav a/3.wav b/4.wav", {"t.csv": "file,x,y\n1.wav,1,0\n2.wav,1,1\n3.wav,0,0\n4.wav,0,1\n"},
        ["a", "a", "b", "b"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_SHOWN)
def test_what_shows_no_several_labels_is_read_as_before(name: str, tmp_path: Path) -> None:
    audio, tables, labels = NOT_SHOWN[name]
    lay_out(tmp_path, audio, tables)
    manifest = read(tmp_path)
    assert (manifest.task, manifest.train["label"].tolist()) == ("single", labels)
    assert "task" not in manifest.describe()
    assert manifest.targets.tolist() == [manifest.labels.index(label) for label in labels]
    assert read(tmp_path, task="single").digest == manifest.digest


def test_a_table_of_numbers_beside_class_folders_is_named(tmp_path: Path) -> None:
    audio, tables, _ = NOT_SHOWN["numbers beside class folders"]
    lay_out(tmp_path, audio, tables)
    (warning,) = read(tmp_path).warnings
    assert warning == "not read: t.csv: its columns x, y are 0 or 1, as for a label each; layout=table reads them"
    assert labels_by_clip(read(tmp_path, layout="table")) == {"1": "x", "2": "x,y", "3": "", "4": "y"}


def test_targets_and_order_of_several_labels(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", '"Dog,Rain"', "Dog", "", '"Rain,Owl"'))
    manifest = read(tmp_path)
    assert manifest.labels == ["Dog", "Owl", "Rain"]
    assert manifest.targets.astype(int).tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 1]]
    ordered, order = manifest.in_canonical_order()
    assert ordered.targets.tolist() == manifest.targets[order].tolist()
    shuffled = column("labels", '"Rain,Dog"', "Dog", "", '"Owl,Rain"')["t.csv"].splitlines()
    (tmp_path / "t.csv").write_text("\n".join([shuffled[0], *shuffled[:0:-1]]) + "\n")
    again = read(tmp_path)
    assert again.digest == manifest.digest
    assert again.in_canonical_order()[0].train["label"].tolist() == ordered.train["label"].tolist()
    for cells in (('"Dog,Rain"', "Dog", "Owl", '"Rain,Owl"'), ('"Dog,Owl"', "Dog", "", '"Rain,Owl"')):
        lay_out(tmp_path, "", column("labels", *cells))
        assert read(tmp_path).digest != manifest.digest


# --- the option task --------------------------------------------------------------------------------


def test_any_table_is_read_as_lists_with_the_option(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("label", '"Chirp, tweet"', "Dog", "None", "Dog,Owl".join('""')))
    assert read(tmp_path, "exclude").task == "single"
    manifest = read(tmp_path, task="multi")
    assert labels_by_clip(manifest) == {"1": "Chirp,tweet", "2": "Dog", "3": "", "4": "Dog,Owl"}
    assert manifest.warnings == ["1 row with None, NaN or the like, read as no label: line 4"]
    (tmp_path / "t.csv").unlink()
    write_clips(tmp_path, *(f"{label}/{i}.wav" for i, label in enumerate(("Dog", "Owl, calling"))))
    for name in CLIPS.split():
        (tmp_path / name).unlink()
    manifest = read(tmp_path, task="multi")
    assert manifest.train["label"].tolist() == ["Dog", '"Owl, calling"']
    assert manifest.layout[1].endswith("; task=multi: one label each")


def test_several_labels_or_none_are_problems_of_single(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", '"Dog,Rain"', "Dog", "", "Rain"))
    assert faults(tmp_path, task="single") == [
        "t.csv:2: 1.wav: the clip has 2 labels (Dog,Rain), and takes one: keep one, or use task=multi",
        "t.csv:4: 3.wav: the label is empty; if the clip has none of the classes, use task=multi",
    ]
    assert labels_by_clip(read(tmp_path, "exclude", task="single")) == {"2": "Dog", "4": "Rain"}
    lay_out(tmp_path, "", {"t.csv": "file,a,b\n1.wav,1,1\n2.wav,0,1\n3.wav,0,0\n4.wav,1,0\n"})
    assert faults(tmp_path, task="single") == [
        "t.csv:2: 1.wav: the clip has 2 labels (a,b), and takes one: keep one, or use task=multi",
        "t.csv:4: 3.wav: the clip has no label; if it has none of the classes, use task=multi",
    ]


def test_errors_of_one_label_a_clip_name_the_option(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("label", "Dog", "Rain", "Rain+Dog", "NaN") | {})
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text() + "2.wav,Dog\n1.wav,Dog\n")
    assert faults(tmp_path) == [
        "t.csv:4: 3.wav: the label 'Rain+Dog' names 2, and a clip takes one label ('Rain' is the label of 1 other "
        "clip): keep one, or separate them by commas and use task=multi",
        "t.csv:5: 4.wav: the label is NaN: the clip has no label; if the clip has none of the classes, use task=multi",
        "t.csv:6: 2.wav: duplicate row: the clip is in line 3 too; if the clip has both labels, use task=multi",
        "t.csv:7: 1.wav: duplicate row: the clip is in line 2 too",
    ]


def test_only_empty_cells_do_not_show_several_labels(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", "Dog", "", "Dog", "Rain"))
    assert faults(tmp_path) == [
        "t.csv:3: 2.wav: the label is empty; if the clip has none of the classes, use task=multi"
    ]
    assert labels_by_clip(read(tmp_path, task="multi")) == {"1": "Dog", "2": "", "3": "Dog", "4": "Rain"}


# --- cells and their faults -------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "separator", "labels"), [
    ("Dog,Rain", ",", ["Dog", "Rain"]), (" Dog ; Rain;", ";", ["Dog", "Rain"]), ('"a, b" , c', ",", ["a, b", "c"]),
    ('5" drum,Dog', ",", ['5" drum', "Dog"]), ("['a' 'b']", ",", ["a", "b"]), ('["a", "b, c"]', ";", ["a", "b, c"]),
    ("[1, 2]", ",", ["1", "2"]), ("[]", ",", []), ("", ",", []), (" nan ", ",", []), ("[Dog]", ",", ["[Dog]"]),
    ("(big) Bear|Owl", "|", ["(big) Bear", "Owl"]), ("R&B", ",", ["R&B"]), ("Dog,", ",", ["Dog"]),
])  # fmt: skip
def test_labels_of_a_cell(cell: str, separator: str, labels: list[str]) -> None:
    assert labels_of(cell, separator) == (tuple(labels), "")


@pytest.mark.parametrize(("cells", "separator"), [
    (["Dog", "Rain"], ","), (["Dog,Rain", "Dog"], ","), (["Dog;Rain"], ";"), (["a|b", "b"], "|"),
    (["a, b;c", "c", "a, b"], ";"), (["a;b,c", "c", "a;b"], ","), (['"a;b",c'], ","), (["['a;b']", "a,b"], ","),
])  # fmt: skip
def test_the_separator_of_a_column(cells: list[str], separator: str) -> None:
    assert separator_of(cells) == separator


def test_faults_of_lists(tmp_path: Path) -> None:
    cells = '"Dog,,Rain"', '"Dog,Rain"', '"dog,Rain"', '"Dog,Dog"', '"Dog\u200b,Owl"', '"None,Dog"', '"""Dog,Rain"'
    lay_out(tmp_path, " ".join(f"{i}.wav" for i in range(1, 9)), column("labels", *cells, '"Rain;Dog,Dog"'))
    shown = faults(tmp_path)
    assert [line.split(":")[1] for line in shown] == ["2", "4", "6", "7", "8", "9"]
    for line, words in zip(shown, [
        "the labels 'Dog,,Rain' have an empty one; write each label once, or leave it out",
        "the label 'dog' (1 clip, first in line 4) differs from 'Dog' (3 clips, first in line 3) only in letter case",
        "differs from 'Dog' (3 clips, first in line 3) only in invisible characters; remove them",
        "the label is None: the clip has no label",
        "the labels '\"Dog,Rain' are no list (unexpected end of data); expected labels separated by ','",
        "the label 'Rain;Dog' names 2 ('Rain' is the label of 2 other clips): give each as a label of its own",
    ], strict=True):  # fmt: skip
        assert words in line
    manifest = read(tmp_path, "exclude")
    assert labels_by_clip(manifest) == {"2": "Dog,Rain", "4": "Dog"}
    assert "1 row with a label twice, which counts once: line 5" in manifest.warnings


@pytest.mark.parametrize("folder", ["audio_train", "clips"])
def test_a_list_without_quotes(folder: str, tmp_path: Path) -> None:
    write_clips(tmp_path / folder, "1.wav", "2.wav", "3.wav")
    table = tmp_path / "train.csv"
    for rest in ("", '2.wav,Rain\n3.wav,"Dog,Rain"\n'):
        table.write_text(f"fname,labels\n1.wav,Dog,Rain\n{rest}")
        assert faults(tmp_path) == [
            "train.csv:2: 1.wav: 3 cells in a table of 2 columns; a list of labels with the separator of the table in "
            "it needs quotes around it"
        ]


def test_rows_of_a_clip_are_merged(tmp_path: Path) -> None:
    table = (
        "file,label,fold,recording_id,verified\n1.wav,Dog,1,a,1\n1.wav,Rain,1,a,0\n2.wav,Dog,1,b,1\n2.wav,Dog,1,b,1\n"
    )
    lay_out(tmp_path, CLIPS, {"t.csv": f"{table}3.wav,Rain,2,c,0\n3.wav,Owl,1,c,0\n4.wav,Dog,2,d,1\n./4.wav,,2,d,1\n"})
    (line,) = faults(tmp_path, task="multi")
    assert line == "t.csv:7: 3.wav: the fold of the clip is '1', and '2' in line 6; write the same in all its rows"
    manifest = read(tmp_path, "exclude", task="multi")
    assert labels_by_clip(manifest) == {"1": "Dog,Rain", "2": "Dog", "4": "Dog"}
    assert manifest.train["manually_verified"].tolist() == [0, 1, 1]
    assert manifest.train["row"].tolist() == [2, 4, 8]
    assert manifest.layout[1].endswith("; task=multi: 4 rows with further labels of clips")


def test_columns_of_0_and_1_by_an_option(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        CLIPS,
        {"t.csv": "file,Dog,is_rain,owl,x\n1.wav,1,1,0,1\n2.wav,0,yes,0,0\n3.wav,0,,0,1\n4.wav,0,0,0,1\n"},
    )
    assert faults(tmp_path, label_column="dog,is_rain,owl") == [
        "t.csv:3: 2.wav: is_rain is 'yes', expected 1 or 0", "t.csv:4: 3.wav: is_rain is '', expected 1 or 0"
    ]  # fmt: skip
    manifest = read(tmp_path, "exclude", label_column="Dog,is_rain,owl")
    assert labels_by_clip(manifest) == {"1": "Dog,is_rain", "4": ""}
    assert "t.csv: 1 column without a clip, left out of the classes: owl" in manifest.warnings
    message = error_line(DataError, read, tmp_path, label_column="Dog,cat")
    assert message.startswith("label_column=Dog,cat: ")


def test_further_labels_of_birdclef(tmp_path: Path) -> None:
    table = "primary_label,secondary_labels,filename\nowl1,\"['fox2', 'cat']\",1.wav\nfox2,[],2.wav\nowl1,[''],3.wav\n"
    lay_out(tmp_path, "train_audio/owl1/1.wav train_audio/fox2/2.wav train_audio/owl1/3.wav", {"train.csv": table})
    manifest = read(tmp_path)
    assert (manifest.task, labels_by_clip(manifest)) == ("single", {"1": "owl1", "2": "fox2", "3": "owl1"})
    assert manifest.warnings == [
        "train.csv: secondary_labels is not used: a clip has one label (task=multi reads all of them)"
    ]
    manifest = read(tmp_path, task="multi")
    assert labels_by_clip(manifest) == {"1": "cat,fox2,owl1", "2": "fox2", "3": "owl1"}
    assert manifest.layout[1].endswith("; task=multi: primary_label and secondary_labels")


# --- clips of no class ------------------------------------------------------------------------------


def test_a_class_may_be_none(tmp_path: Path) -> None:
    folders = tmp_path / "folders"
    write_clips(folders, "noise/1.wav", "Dog/2.wav", "noise/3.wav", "Owl/4.wav")
    manifest = read(folders, background="noise")
    assert (manifest.layout[0], manifest.task, manifest.labels) == ("class_folders", "multi", ["Dog", "Owl"])
    assert labels_by_clip(manifest) == {"1": "", "2": "Dog", "3": "", "4": "Owl"}
    assert manifest.layout[1].endswith("; task=multi: one label each, noise is no label")
    single = read(folders, background="noise", task="single")
    assert single.digest == read(folders).digest
    assert single.labels == ["Dog", "Owl", "noise"]
    for task in ("auto", "single"):
        message = error_line(DataError, read, folders, background="Noise", task=task)
        assert message == "background=Noise: no clip has this label; did you mean noise?"
    message = error_line(DataError, read, folders, background="x")
    assert message == "background=x: no clip has this label; the labels are Dog, Owl, noise"

    table = tmp_path / "table"
    lay_out(table, CLIPS, column("label", "noise", "Dog", '"Dog,noise"', "Noise"))
    assert faults(table, background="noise") == [
        "t.csv:5: 4.wav: the label 'Noise' looks like background=noise, and is another text; write one"
    ]
    manifest = read(table, "exclude", background="noise", task="multi")
    assert labels_by_clip(manifest) == {"1": "", "2": "Dog", "3": "Dog"}
    assert "1 row with noise beside other labels, which is left out: line 4" in manifest.warnings
    lay_out(table, "", column("label", "noise", '"Owl, calling"', '"Owl, calling"', "Dog"))
    manifest = read(table, background="noise")
    assert manifest.labels == ["Dog", "Owl, calling"]  # nothing says that a cell is a list
    assert manifest.layout[1].endswith("; task=multi: one label each, noise is no label")
    lay_out(table, "", column("label", "None", "Dog", "None", "Dog"))
    manifest = read(table, background="None")
    assert (labels_by_clip(manifest), manifest.warnings) == ({"1": "", "2": "Dog", "3": "", "4": "Dog"}, [])


def test_background_noise_of_speech_commands(tmp_path: Path) -> None:
    write_clips(tmp_path, "yes/a_nohash_0.wav", "no/b_nohash_0.wav", "_background_noise_/rain.wav")
    (tmp_path / "testing_list.txt").write_text("")
    without = read(tmp_path)
    assert (without.task, len(without.train)) == ("single", 2)
    manifest = read(tmp_path, background="_background_noise_")
    assert (manifest.layout[0], labels_by_clip(manifest)) == (
        "speech_commands", {"a_nohash_0": "yes", "b_nohash_0": "no", "rain": ""},
    )  # fmt: skip
    message = error_line(DataError, read, tmp_path, background="background_noise")
    assert message == "background=background_noise: no clip has this label; did you mean _background_noise_?"


def test_one_class_and_none_of_it(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", "Owl", "", "Owl", ""))
    assert why_one_label(read(tmp_path, task="multi")) == ""
    lay_out(tmp_path, "", column("labels", "Owl", "Owl", "Owl", "Owl"))
    reason = why_one_label(read(tmp_path, task="multi"))
    assert reason.startswith("all of 4 training clips have the only label, Owl, and a tagger needs clips without it")
    lay_out(tmp_path, "", column("labels", "", "", "", ""))
    assert why_one_label(read(tmp_path, task="multi")).startswith("none of 4 training clips has a label")


def test_equal_sounds_with_other_labels_contradict(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", '"Dog,Rain"', '"Rain,Dog"', "", '"Owl,""Chirp, tweet"""'))
    manifest = read(tmp_path)
    reasons = contradictions(manifest.train, [0, 0, 1, 2], manifest.task)
    assert reasons == [""] * 4
    reasons = contradictions(manifest.train, [0, 1, 1, 0], manifest.task)
    assert reasons == [
        "the same sound as 4.wav in line 5, whose labels are 'Chirp, tweet' and Owl",
        "the same sound as 3.wav in line 4, which has no label",
        "the same sound as 2.wav in line 3, whose labels are Dog and Rain",
        "the same sound as 1.wav in line 2, whose labels are Dog and Rain",
    ]


def test_clips_of_a_run_are_found_by_their_digest(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", '"Dog,Rain"', "Dog", "", "Rain"))
    manifest, _ = read(tmp_path).in_canonical_order()
    clips = manifest.train[["fname", "label", "manually_verified"]]
    trained = Trained(clips, np.zeros(4, dtype=bool), manifest.digest, 0.0)
    assert find_clips(trained, ["/elsewhere"], tmp_path) == ClipFolder(tmp_path.resolve())
    for name in ("2.wav", "3.wav"):
        write_wav(tmp_path / name, tone(900, 0.3, 8000))
    assert find_clips(trained, ["/elsewhere"], tmp_path).folder is None


# --- what must not be lost, or become a label --------------------------------------------------------


@pytest.mark.parametrize("cell", ["['Dog', 'Owl", "['Dog', nan]", "[['Dog', 'Owl']]", "{'Dog': 1}", "Owl (old, loud)"])
def test_broken_lists_make_no_labels(cell: str, tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", f'"{cell}"', '"Dog,Rain"', "Rain (light)", '"""Owl (old, loud)"",Dog"'))
    (line,) = faults(tmp_path)
    assert line.startswith(
        f"t.csv:2: 1.wav: the labels {cell!r} are no list that can be read; write Dog,Rain or ['Dog'"
    )
    assert "Owl (old, loud)" in read(tmp_path, "exclude").labels


def test_an_object_in_json_lines_is_no_label(tmp_path: Path) -> None:
    cells = '["Dog","Rain"]', '{"Dog": 1}', '[{"name": "Dog"}]', '["Rain"]'
    lines = "".join(f'{{"file": "{i}.wav", "labels": {cell}}}\n' for i, cell in enumerate(cells, 1))
    lay_out(tmp_path, CLIPS, {"t.jsonl": lines})
    assert [line.partition(" are no ")[0] for line in faults(tmp_path)] == [
        "t.jsonl:2: 2.wav: the labels \"{'Dog': 1}\"", "t.jsonl:3: 3.wav: the labels \"{'name': 'Dog'}\""
    ]  # fmt: skip


def test_columns_of_numbers_are_no_classes(tmp_path: Path) -> None:
    names = "duration,snr_db,Latitude,n_channels,noisy,is_test,mic,Dog,train,all"
    rows = "1.0,0,1,1,1,0,1,1,0,1", "1.0,1,0,1,0,0,0,1,1,1", "1.0,0,1,1,1,1,1,0,0,1", "1.0,0,0,1,0,1,1,0,1,1"
    table = "".join(f"{i}.wav,{row}\n" for i, row in enumerate(rows, 1))
    lay_out(tmp_path, CLIPS, {"t.csv": f"file,{names}\n{table}"})
    for option in ("fold_column", "group_column", "verified_column"):
        manifest = read(tmp_path, **{option: "mic"})
        assert manifest.labels == ["Dog", "all", "train"]
    assert (
        "t.csv: 1 column with 1 in every row, read as a label: all (label_column= names the columns of labels, "
        "separated by commas)"
    ) in manifest.warnings
    assert (
        "t.csv: 6 columns of 0 and 1 read as no label by the name: duration, snr_db, Latitude, n_channels, noisy, "
        "is_test (label_column= names the columns of labels, separated by commas)"
    ) in manifest.warnings
    assert labels_by_clip(read(tmp_path, task="multi", label_column="dog")) == {
        "1": "Dog",
        "2": "Dog",
        "3": "",
        "4": "",
    }
    assert read(tmp_path, label_column="dog").labels == ["0", "1"]


def test_labels_of_test_clips_are_not_checked(tmp_path: Path) -> None:
    rows = [f"{i}.wav,1,{i % 2},0,train" for i in range(1, 10)]
    audio = " ".join(f"{i}.wav" for i in range(1, 11))
    lay_out(tmp_path, audio, {"t.csv": "\n".join(["file,Dog,Rain,Owl,split", *rows, "10.wav,,,1,test", ""])})
    manifest = read(tmp_path)
    assert (manifest.labels, manifest.test["fname"].tolist()) == (["Dog", "Rain"], ["10.wav"])
    assert "t.csv: 1 column without a clip, left out of the classes: Owl" in manifest.warnings


def test_rows_of_test_clips(tmp_path: Path) -> None:
    rows = "1.wav,Dog,train\n1.wav,Owl,train\n2.wav,Owl,train\n3.wav,Dog,test\n3.wav,Owl,test\n4.wav,Dog,train\n"
    lay_out(tmp_path, CLIPS, {"t.csv": f"file,label,split\n{rows}"})
    manifest = read(tmp_path, task="multi")
    assert manifest.test["fname"].tolist() == ["3.wav"]
    assert "1 further row of test clips, which count once" in manifest.warnings
    lay_out(tmp_path, "", {"t.csv": f"file,label,split\n{rows}4.wav,Owl,test\n"})
    assert faults(tmp_path, task="multi") == [
        "t.csv:7: 4.wav: the clip is a test clip in line 8; write the same part in all its rows"
    ]


def test_a_clip_with_a_row_that_is_left_out_is_left_out(tmp_path: Path) -> None:
    write_clips(tmp_path / "a", *CLIPS.split())
    (tmp_path / "t.csv").write_text("file,labels\n1.wav,Dog\n1.wav,Owl,Rain\n2.wav,Dog\n2.wav,Owl\n2.wav,\n4.wav,Owl\n")
    manifest = read(tmp_path, "exclude", task="multi")
    assert labels_by_clip(manifest) == {"2": "Dog,Owl", "4": "Owl"}
    assert "1 row without a label of clips with labels in other rows, which count: line 6" in manifest.warnings


def test_relevance_that_is_no_probability(tmp_path: Path) -> None:
    rows = "1,flute,0.9\n1,banjo,0.2\n2,flute,\n3,flute,0.1\n3,cello,0.7\n4,cello,0.8\n"
    lay_out(tmp_path, CLIPS, {"t.csv": f"sample_key,instrument,relevance\n{rows}"})
    assert faults(tmp_path, task="multi") == [
        "t.csv:4: 2.wav: the relevance is no number from 0 to 1, so it is unknown if the clip has the label"
    ]
    manifest = read(tmp_path, "exclude", task="multi")
    assert labels_by_clip(manifest) == {"1": "flute", "3": "cello", "4": "cello"}
    warning = "1 label with a relevance below 0.5 in all rows, left out of the classes: banjo"
    assert warning in manifest.warnings
    lay_out(
        tmp_path, "", {"t.csv": "sample_key,instrument,relevance\n1,flute,90\n2,flute,80\n3,cello,20\n4,cello,70\n"}
    )
    (warning,) = read(tmp_path).warnings
    assert warning == (
        "t.csv: relevance is not used, so that each row counts: line 2 has '90', expected probabilities from 0 to 1"
    )
    lay_out(
        tmp_path, "", {"t.csv": "sample_key,instrument,relevance\n1,flute,.9\n2,flute,.8\n3,cello,.2\n4,cello,.7\n"}
    )
    (warning,) = read(tmp_path).warnings
    assert warning.startswith("t.csv: a relevance below 0.5 is not used: a clip has one label")


def test_further_labels_that_are_no_list(tmp_path: Path) -> None:
    header = "primary_label,secondary_labels,common_name,filename"
    lay_out(tmp_path, CLIPS, {"t.csv": f"{header}\nowl1,\"['fox2', 'cat\",Owl,1.wav\nfox2,cat,Fox,2.wav\n"})
    (line,) = faults(tmp_path, task="multi")
    assert line.startswith("t.csv:2: 1.wav: secondary_labels: the labels \"['fox2', 'cat\" are no list")
    assert labels_by_clip(read(tmp_path, "exclude", task="multi")) == {"2": "cat,fox2"}
    lay_out(tmp_path, "", {"t.csv": f"{header}\nowl1,,Owl,1.wav\nfox2,cat;owl1,Fox,2.wav\n"})
    assert labels_by_clip(read(tmp_path, task="multi")) == {"1": "owl1", "2": "cat,fox2,owl1"}
    warnings = read(tmp_path, task="multi", label_column="common_name").warnings
    assert any("secondary_labels is not used" in line and "label_column=primary_label" in line for line in warnings)


def test_parts_of_fsdkaggle2019_that_are_not_used(tmp_path: Path) -> None:
    tables = {"train_curated.csv": 'fname,labels\n1.wav,"Dog,Owl"\n', "train_noisy.csv": "fname,labels\n2.wav,Owl\n"}
    lay_out(tmp_path, "train_curated/1.wav test/2.wav", tables)
    warnings = read(tmp_path).warnings
    assert warnings[:2] == [
        "train_noisy.csv is not used, because train_noisy or FSDKaggle2019.audio_train_noisy is missing",
        "test is not used, because sample_submission.csv or test_post_competition.csv or "
        "FSDKaggle2019.meta/test_post_competition.csv is missing",
    ]


def test_a_class_that_may_mean_none_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", "none", "none", '"Dog,Rain"', "Rain"))
    (warning,) = read(tmp_path).warnings
    assert warning == "read as classes: none; if it means no label, background=none makes its clips have none"


def test_a_table_of_clips_leaves_out_rows_with_a_problem(tmp_path: Path) -> None:
    rows = "".join(f"{i}.wav,{i % 2},{'' if i == 4 else 1}\n" for i in range(1, 13))
    lay_out(tmp_path, " ".join(f"{i}.wav" for i in range(1, 13)), {"t.csv": f"file,Dog,Rain\n{rows}"})
    output = tmp_path / "out" / "clips.csv"
    output.parent.mkdir()
    result = CliRunner().invoke(cli, ["manifest", str(tmp_path), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert "4.wav" not in output.read_text()
    assert read(tmp_path, task="multi", table=str(output)).digest == read(tmp_path, "exclude").digest


def test_classes_that_nothing_tells_apart_are_named(tmp_path: Path) -> None:
    lay_out(tmp_path, CLIPS, column("labels", '"Dog,Rain,Wind"', '"Dog,Rain,Wind"', '"Owl,Wind"', '"Fox,Wind"'))
    expected = [
        "1 class of all 4 clips, whose scores say nothing: Wind; add clips without it, or take it out",
        "1 group of classes that the same clips have, which nothing tells apart: Dog and Rain; if they are one label, "
        "put it in quotes",
    ]
    manifest = inspect_dataset(tmp_path)
    assert manifest.warnings[:2] == expected
    assert class_warnings(manifest.targets[2:], manifest.labels)[1:] == []  # one clip each
    lay_out(tmp_path, "", column("labels", *['"Dog,Rain"'] * 4))
    assert why_one_label(read(tmp_path)).startswith(
        "all of 4 training clips have the same labels, Dog,Rain, and a tagger needs clips without them: add some"
    )


def test_folds_without_a_label_are_named() -> None:
    targets = np.array([[1, 0], [0, 0], [0, 1], [0, 0]], dtype=bool)
    assert describe_unscored(targets, np.array([0, 1, 2, 1])) == (
        "no clip with a label in fold 1, whose lwlrap and mAP are undefined"
    )
    assert describe_unscored(targets, np.array([0, 0, 1, 1])) == describe_unscored(np.array([0, 1]), np.arange(2)) == ""


def test_lists_count_before_a_column_of_one_label_each(tmp_path: Path) -> None:
    table = 'file,label,labels\n1.wav,Dog,"Dog,Owl"\n2.wav,Owl,Owl\n3.wav,Dog,"Dog,Owl"\n4.wav,Owl,Owl\n'
    lay_out(tmp_path, CLIPS, {"t.csv": table})
    assert read(tmp_path).task == "single"  # as before there were lists
    manifest = read(tmp_path, task="multi")
    assert labels_by_clip(manifest)["1"] == "Dog,Owl"
    assert manifest.warnings == ["t.csv: labels is read as the labels, not label (label_column= chooses another)"]
    write_clips(tmp_path / "kaggle" / "audio_train", "1.wav", "2.wav", "3.wav", "4.wav")
    (tmp_path / "kaggle" / "train.csv").write_text(table.replace("file", "fname"))
    message = error_line(DataError, read, tmp_path / "kaggle", task="multi")
    assert message.endswith("it has the columns label and labels; keep the one that has all labels of the clips")


def test_recordings_with_a_set_of_labels_each_are_groups(tmp_path: Path) -> None:
    cells = '"Dog,Rain",a', '"Dog,Rain",a', "Dog,b", "Dog,b"
    lay_out(tmp_path, CLIPS, column("labels,recording_id", *cells))
    assert read(tmp_path).train["group"].tolist() == ["a", "a", "b", "b"]


def test_tables_of_parts_have_the_same_columns_of_0_and_1(tmp_path: Path) -> None:
    lay_out(tmp_path, "train/1.wav train/2.wav val/3.wav val/4.wav", {
        "train/metadata.csv": "file_name,Dog,Owl\n1.wav,1,1\n2.wav,0,1\n",
        "val/metadata.csv": "file_name,Dog,Cat\n3.wav,1,1\n4.wav,0,1\n",
    })  # fmt: skip
    message = error_line(DataError, read, tmp_path)
    assert message.endswith("only some of the tables have the column Owl; choose one with table=")
    (tmp_path / "val" / "metadata.csv").write_text("file_name,Dog,Owl\n3.wav,1,x\n4.wav,0,1\n")
    label_columns = {"label_column": "Dog,Owl", "layout": "audiofolder"}
    assert faults(tmp_path, **label_columns) == ["val/metadata.csv:2: val/3.wav: Owl is 'x', expected 1 or 0"]
    assert sorted(labels_by_clip(read(tmp_path, "exclude", **label_columns))) == ["1", "2", "4"]


def test_recordings_whose_clips_may_lack_labels_are_named(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(300, 9.0, 8000))
    write_wav(tmp_path / "b.wav", tone(400, 9.0, 8000))
    (tmp_path / "a.txt").write_text("0\t2\tDog\n4\t3\tOwl\n")
    (tmp_path / "b.txt").write_text("0\t2\tDog\n1\t2\tOwl\n")
    manifest = read(tmp_path, "exclude", task="multi")
    assert "clips of a.wav may lack labels, as annotations there are left out" in manifest.warnings
    assert not any("may lack" in line for line in read(tmp_path, "exclude").warnings)
