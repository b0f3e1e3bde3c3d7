"""Datasets as they are found: small ones like published and private ones are read, or refused in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import error_line
from layouts import lay_out, write_clips

from fsat.data.layouts.manifest_table import write_manifest_table
from fsat.data.layouts.recognise import read_layout
from fsat.data.manifest import read_manifest
from fsat.errors import DataError
from fsat.layout_options import LayoutOptions

# name: the sounds, the tables, the layout and the labels by their clips' names without folders and suffixes
READ: dict[str, tuple[str, dict[str, str], str, dict[str, str]]] = {
    "GTZAN, one of whose tables is of parts of its clips": (
        "genres_original/blues/blues.0.wav genres_original/rock/rock.0.wav",
        {
            "features_30_sec.csv": "filename,length,label\nblues.0.wav,9,blues\nrock.0.wav,9,rock\n",
            "features_3_sec.csv": "filename,length,label\nblues.0.1.wav,9,blues\nrock.0.1.wav,9,rock\n",
        },
        "table", {"blues.0": "blues", "rock.0": "rock"},
    ),
    "tables of no clip that is there": (
        "cat/1.wav dog/2.wav",
        {"features.csv": "file,mfcc,target\nx.npy,3,9\ny.npy,3,8\n", "test_submission.csv": "fname,label\n1.wav,dog\n"},
        "class_folders", {"1": "cat", "2": "dog"},
    ),
    "TAU Urban Acoustic Scenes": (
        "audio/bus-1-a.wav audio/park-2-a.wav",
        {
            "meta.csv": "filename\tscene_label\tidentifier\tsource_label\n"
            "audio/bus-1-a.wav\tbus\tlisbon-1\ta\naudio/park-2-a.wav\tpark\tlisbon-2\ta\n",
            "evaluation_setup/fold1_train.csv": "filename\tscene_label\naudio/bus-1-a.wav\tbus\n",
        },
        "table", {"bus-1-a": "bus", "park-2-a": "park"},
    ),
    "BirdCLEF": (
        "train_audio/owl1/XC1.ogg train_audio/fox2/XC2.ogg test_soundscapes/s_1.ogg",
        {
            "train_metadata.csv": "primary_label,secondary_labels,common_name,filename\n"
            "owl1,['fox2'],Owl,owl1/XC1.ogg\nfox2,[],Fox,fox2/XC2.ogg\n",
            "sample_submission.csv": "row_id,owl1,fox2\ns_1_5,0.5,0.5\n",
        },
        "table", {"XC1": "owl1", "XC2": "fox2"},
    ),
    "clips without labels beside class folders": (
        "train_audio/owl/1.wav train_audio/fox/2.wav unlabeled_soundscapes/3.wav test_soundscapes/4.wav",
        {"train.csv": "ebird_code,filename\nowl,1.wav\nfox,2.wav\n"},
        "table", {"1": "owl", "2": "fox"},
    ),
    "freefield1010": (
        "wav/64486.wav wav/2525.wav", {"ff1010bird_metadata.csv": "itemid,hasbird\n64486,0\n2525,1\n"},
        "table", {"64486": "0", "2525": "1"},
    ),
    "a column known by what it names": (
        "sounds/é1.wav sounds/é2.wav", {"Liste.csv": "Nr;Fichier;Espèce;category\n1;É1.WAV;x;duc\n2;é2.wav;x;renard\n"},
        "table", {"é1": "duc", "é2": "renard"},
    ),
    "a table three folders deep": (
        "audio/weak/Y1.wav audio/weak/Y2.wav",
        {"metadata/train/weak/a.tsv": "filename\tevent_labels\nY1.wav\tDog\nY2.wav\tCat\n"},
        "table", {"Y1": "Dog", "Y2": "Cat"},
    ),
    "names of files with another suffix": (
        "clips/1.flac clips/2.flac", {"labels.csv": "file,label\n1.mp3,Dog\n2.mp3,Cat\n"},
        "table", {"1": "Dog", "2": "Cat"},
    ),
    "numbers that were made decimal": (
        "clips/1001.wav clips/1002.wav", {"labels.csv": "file,label\n1001.0,Dog\n1002.0,Cat\n"},
        "table", {"1001": "Dog", "1002": "Cat"},
    ),
    "files of one name in the folders of their labels": (
        "a/Dog/1.wav a/Cat/1.wav", {"labels.csv": "file,label\n1.wav,Dog\n1.wav,Cat\n"},
        "table", {"Dog/1": "Dog", "Cat/1": "Cat"},
    ),
    "two tables beside files of one name": (
        "train/a/1.wav test/a/1.wav",
        {"train/x.csv": "file,label\n1.wav,Dog\n", "test/x.csv": "file,label\n1.wav,Dog\n"},
        "table", {"train/a/1": "Dog"},
    ),
    "parts beside others": (
        "1.wav 2.wav 3.wav", {"labels.csv": "file,label,split\n1.wav,Dog,train\n2.wav,Cat,extra\n3.wav,Cat,test\n"},
        "table", {"1": "Dog", "2": "Cat"},
    ),
    "a table of test clips without labels": (
        "a/1.wav a/2.wav b/3.wav", {"train.csv": "file,label\n1.wav,Dog\n2.wav,Cat\n", "test.csv": "file\n3.wav\n"},
        "table", {"1": "Dog", "2": "Cat"},
    ),
    "IRMAS": (
        "IRMAS-TrainingData/cel/1.wav IRMAS-TrainingData/cla/2.wav IRMAS-TestingData-Part1/Part1/3.wav",
        {"IRMAS-TestingData-Part1/Part1/3.txt": "cel\t\n", "IRMAS-TrainingData/README.txt": "IRMAS"},
        "class_folders", {"1": "cel", "2": "cla"},
    ),
    "an archive and a note beside its folder": (
        "ESC/audio/1-a.wav ESC/audio/2-b.wav",
        {
            "ESC.zip": "PK", "README.txt": "a, b",
            "ESC/meta/esc50.csv": "filename,fold,category\n1-a.wav,1,Dog\n2-b.wav,2,Cat\n",
        },
        "esc50", {"1-a": "Dog", "2-b": "Cat"},
    ),
    "Speech Commands at Kaggle": (
        "train/audio/yes/a_nohash_0.wav train/audio/no/b_nohash_0.wav test/audio/clip_1.wav",
        {
            "train/validation_list.txt": "no/b_nohash_0.wav\n",
            "sample_submission.csv": "fname,label\nclip_1.wav,silence\n",
        },
        "speech_commands", {"a_nohash_0": "yes", "b_nohash_0": "no"},
    ),
    "folders of systems": (
        "cat/1.wav dog/2.wav $RECYCLE.BIN/3.wav dog/@eaDir/2.wav/x.wav __MACOSX/cat/4.wav", {},
        "class_folders", {"1": "cat", "2": "dog"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_dataset_of_strangers(name: str, tmp_path: Path) -> None:
    audio, tables, layout, labels = READ[name]
    lay_out(tmp_path, audio, tables)
    manifest = read_manifest(tmp_path)
    found = dict(zip(manifest.train["fname"], manifest.train["label"], strict=True))
    assert manifest.layout[0] == layout
    short = {end: next(f for f in found if f"/{f}".rpartition(".")[0].endswith(f"/{end}")) for end in labels}
    assert {end: found[fname] for end, fname in short.items()} == labels
    assert len(found) == len(labels)
    understood = tmp_path.parent / f"{tmp_path.name}.csv"
    write_manifest_table(read_layout(tmp_path), tmp_path, understood)
    again = read_manifest(tmp_path, layout=LayoutOptions(table=str(understood)))
    assert (again.digest, len(again.test)) == (manifest.digest, len(manifest.test))


# name: the sounds, the tables, and parts of the one line
REFUSED: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "clips in one folder": (
        "recordings/0_jackson_0.wav recordings/1_jackson_0.wav", {},
        ["2 audio files (recordings/0_jackson_0.wav", "all in one folder, recordings, but no table of labels"],
    ),
    "a table without known labels": (
        "clips/1.wav clips/2.wav", {"dev.tsv": "client_id\tpath\tgender\nx\t1.wav\tmale\nx\t2.wav\tfemale\n"},
        ["dev.tsv: no column is known to be the labels: it has client_id, path, gender; name one with label_column="],
    ),
    "a table without known files": (
        "M_test-0_x.wav M_test-1_y.wav", {"metadata.csv": "subset,instrument,uuid4\ntest,flute,x\ntest,piano,y\n"},
        ["metadata.csv: no column is known to be the files of the clips: it has subset, instrument, uuid4"],
    ),
    "a table without a header": (
        "audio/a.wav audio/b.wav", {"meta.txt": "audio/a.wav\tbeach\na/b.wav\tbus\n"},
        ["meta.txt: it has no header line, as its first line names audio/a.wav: add one such as filename,label"],
    ),
    "a list with spaces": (
        "clips/1.wav clips/2.wav", {"list.txt": "clips/1.wav dog\nclips/2.wav cat\n"},
        ["list.txt: it has no header line, as its first line names clips/1.wav: add one", "separate cells by commas"],
    ),
    "a table of which every row is ragged": (
        "clips/1.wav clips/2.wav", {"labels.csv": "file,label\n1.wav\n2.wav\n"},
        ["no row of labels.csv can be used; fix the rows listed above"],
    ),
    "a table of other clips": (
        "audio/0001.wav audio/0002.wav", {"labels.csv": "file,label\n1,Dog\n2,Cat\n"},
        ["labels.csv: none of its 2 rows names an audio file that is there: the first file is 1", "audio/0001.wav"],
    ),
    "a table of something else": (
        "audio/a.wav audio/b.wav", {"weather.csv": "day,rain\n1,2\n"},
        ["weather.csv: no column names audio files: it has day, rain"],
    ),
    "annotations of which none can be used": (
        "rec/101.wav rec/102.wav", {"rec/101.txt": "0.1\t0.5\t0\t1\n"},
        ["no annotation of the recordings in", "fix the rows listed above"],
    ),
    "a workbook as the table": (
        "a/1.wav b/1.wav", {"labels.xlsx": "PK"}, ["table=labels.xlsx: a file .xlsx is not read; save as CSV"],
    ),
    "a workbook": ("a.wav b.wav", {"labels.xlsx": "PK"}, ["1 file .xlsx (labels.xlsx): save as CSV"]),
    "an Audacity project": (
        "rec1.wav rec2.wav", {"rec1.aup3": "x"}, ["1 file .aup3 (rec1.aup3): export the labels from Audacity"],
    ),
    "archives": ("", {"a/b.zip": "PK"}, ["no audio file is in or below it", "1 file .zip (b.zip): unpack"]),
    "an empty table": ("a.wav b.wav", {"labels.csv": ""}, ["labels.csv: the table is empty"]),
    "annotations with other columns": (
        "rec/101.wav rec/102.wav", {"rec/101.txt": "0.1\t0.5\t0\t1\n"},
        ["rec/101.txt has the name of a recording, but no annotations: line 1: 4 cells; expected start, end, label"],
    ),
    "files of each row in two folders": (
        "audio/44/1.wav audio/44/2.wav audio/16/1.wav audio/16/2.wav",
        {"labels.csv": "file,label\n1.wav,Dog\n2.wav,Cat\n"},
        ["each of its 2 clips is in 2 folders, audio/16, audio/44; name the folder in file, or move the others away"],
    ),
    "tables in folders beside each other": (
        "audio/1.wav", {"A/x.csv": "file,label\n1.wav,Dog\n", "B/x.csv": "file,label\n1.wav,Cat\n"},
        ["2 tables may name clips and labels: A/x.csv, B/x.csv; choose one with table="],
    ),
    "annotations of one of many clips": (
        "Dog/1.wav Dog/2.wav Cat/3.wav", {"Dog/1.txt": "0.0\t0.1\tbark\n"},
        ["2 ways: layout=annotations (", "layout=class_folders (the folders Cat, Dog); choose one of these options"],
    ),
}  # fmt: skip


OPTIONS = {
    "files of each row in two folders": {"layout": "table"},
    "annotations of which none can be used": {"layout": "annotations"},
    "a workbook as the table": {"table": "labels.xlsx"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_for_certain_is_one_line(name: str, tmp_path: Path) -> None:
    audio, tables, parts = REFUSED[name]
    lay_out(tmp_path, audio, tables)
    message = error_line(DataError, read_manifest, tmp_path, layout=LayoutOptions(**OPTIONS.get(name, {})))
    for part in parts:
        assert part in message


def test_what_is_beside_class_folders_is_said(tmp_path: Path) -> None:
    write_clips(tmp_path, "cat/1.wav", "dog /2.wav")
    lay_out(tmp_path, "", {"all.csv": "filename,seconds\ncat/1.wav,1\n", "more.rar": "Rar", "test.txt": "cat/1.wav\n"})
    (tmp_path / "owl").mkdir()
    manifest = read_manifest(tmp_path)
    assert manifest.labels == ["cat", "dog"]
    assert manifest.warnings == [
        "1 folder beside those of the classes without an audio file: owl",
        "not read: all.csv: no column is known to be the labels: it has filename, seconds; name one with label_column=",
        "not read: test.txt: it lists clips without labels; clips in a folder test/ are test clips",
        "not read: 1 file .rar (more.rar): unpack",
    ]


def test_a_column_is_not_used_twice(tmp_path: Path) -> None:
    lay_out(tmp_path, "1.wav 2.wav", {"a.csv": "file,speaker_id,split\n1.wav,Ann,x\n2.wav,Bo,y\n"})
    manifest = read_manifest(tmp_path, layout=LayoutOptions(label_column="speaker_id"))
    assert manifest.train["label"].tolist() == ["Ann", "Bo"]
    assert "group" not in manifest.train


def test_a_table_by_its_name_from_the_folder_around_the_data(tmp_path: Path) -> None:
    tables = {
        "data/meta/a.csv": "file,label\n1.wav,Dog\n2.wav,Cat\n",
        "data/meta/b.csv": "file,label\n1.wav,x\n2.wav,y\n",
    }
    lay_out(tmp_path, "data/audio/1.wav data/audio/2.wav", tables)
    for name in ("meta/a.csv", "data/meta/a.csv", str(tmp_path / "data" / "meta" / "a.csv")):
        assert read_manifest(tmp_path, layout=LayoutOptions(table=name)).labels == ["Cat", "Dog"]


def test_a_data_folder_called_test_has_clips_to_train_on(tmp_path: Path) -> None:
    lay_out(tmp_path / "test", "1.wav 2.wav", {"labels.csv": "file,label\n1.wav,Dog\n2.wav,Cat\n"})
    assert read_manifest(tmp_path / "test").labels == ["Cat", "Dog"]
    (tmp_path / "test" / "labels.csv").rename(tmp_path / "test" / "test.csv")
    assert read_manifest(tmp_path / "test", layout=LayoutOptions(table="test.csv")).labels == ["Cat", "Dog"]


def test_test_clips_without_labels(tmp_path: Path) -> None:
    audio, tables, _, _ = READ["a table of test clips without labels"]
    lay_out(tmp_path, audio, tables)
    manifest = read_manifest(tmp_path)
    assert (manifest.test["fname"].tolist(), manifest.warnings) == (["b/3.wav"], [])


def test_groups_that_are_the_labels_by_another_name_are_none(tmp_path: Path) -> None:
    rows = "".join(f"{i}.wav,{'ab'[i % 2]},{'xy'[i % 2]}\n" for i in range(4))
    lay_out(tmp_path, "0.wav 1.wav 2.wav 3.wav", {"a.csv": f"file,label,identifier\n{rows}"})
    manifest = read_manifest(tmp_path)
    assert "group" not in manifest.train
    assert manifest.warnings == [
        "a.csv: identifier has one value for each label, so it is not read as groups (group_column= reads it)"
    ]
    assert "group" in read_manifest(tmp_path, layout=LayoutOptions(group_column="identifier")).train


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clips(tmp_path, "cat/1.wav", "dog/2.wav", "owl/3.wav")
    scandir = os.scandir

    def deny(path: str | Path) -> Iterator[os.DirEntry[str]]:  # tests may run as root, whom no permission stops
        if str(path).endswith("owl"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    assert "owl" in error_line(DataError, read_manifest, tmp_path)
    message = error_line(DataError, read_manifest, tmp_path, layout=LayoutOptions(layout="class_folders"))
    assert message.startswith(f"{tmp_path}: 1 folder cannot be read (owl); change the permissions")
