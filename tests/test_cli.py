"""Every mistake is one line and a non-zero exit code."""

import re
import shlex
from collections.abc import Callable

import numpy as np
import pytest
import soundfile as sf
from fsat_process import start_fsat
from helpers import make_dataset, tone, write_wav

import fsat
from fsat.cli import run
from fsat.cli.shared_options import read_source
from fsat.layout_options import LayoutOptions


@pytest.fixture
def error_line(signals, tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Run a command in an empty folder and return its only line, which is an error."""
    monkeypatch.chdir(tmp_path)

    def line(*arguments: object, status: int = 1) -> str:
        assert run([str(word) for word in arguments]) == status
        output, messages = capsys.readouterr()
        assert output == ""
        assert messages.startswith("fsat: error: ")
        assert messages.count("\n") == 1, messages
        return messages.rstrip()

    return line


@pytest.mark.parametrize(
    ("command", "status", "expected"),
    [
        ("train_fold --fold abc", 2, "'abc' is not a valid integer"),
        ("train_fold --fold -1", 2, "expected 0 or more"),
        ("train_fold", 2, "Missing option '--fold'"),
        ("train_fold --fold 0 --model resnet", 1, "model=resnet: expected one of dummy1d, conv1d, conv2d_mfcc"),
        ("train_fold --fold 0 --preset slow", 1, "preset=slow: expected one of dummy1d, conv1d"),
        ("train_fold --fold 0 --lerning_rate 1", 2, "Did you mean one of: '--learning_rate'"),
        ("train_fold --fold 0 --batch_size 0", 1, "batch_size=0: expected at least 1"),
        ("train_fold --fold 0 --model conv1d --preset quick", 1, "conv1d cannot take 100 samples (sampling_rate=100 "),
        ("train_fold --fold 0 --data_dir nowhere", 1, "nowhere: no such folder"),
        ("train_fold --fold 0 --on_bad_clip skip", 2, "'skip' is not one of 'error', 'exclude'"),
        ("predict --input nowhere", 1, "input=nowhere: no such file or folder"),
        ("predict --input . --top_k 0", 2, "top_k=0: expected at least 1; see `python -m fsat predict --help`"),
        ("predict --input . --min-score 2", 2, "min_score=2: expected at most 1"),
        ("predict --input . --window 1 --hop 2", 2, "hop=2: expected at most window=1"),
        ("predict --input . --label-tracks t", 2, "--label_tracks requires --window"),
        ("predict --input . --workers 0", 2, "'0': expected auto or a whole number of at least 1"),
        ("predict --input . --output .", 1, "is a folder; expected the name of a file to write"),
        ("ensemble --run_ids ,", 2, "--run_ids is empty; expected words separated by commas"),
        ("ensemble --blend foo", 2, "'foo' is not one of 'geometric', 'arithmetic', 'weighted'"),
        (
            "ensemble --register_as team/birds",
            2,
            "register_as=team/birds: it has / in it; expected at most 256 charact",
        ),
        ("main --register_as ..", 2, "register_as=..: it is no name; expected at most 256 characters"),
        ("verify --accept_at 1.5", 2, "accept_at=1.5: expected at most 1"),
        ("eda --data_dir", 2, "Option '--data_dir' requires an argument"),
        ("sample /dev/null", 1, "/dev/null: is a file; expected a new or empty folder"),
        ("eda --data_dir /dev/null", 1, "/dev/null: not a folder"),
        (f"eda --data_dir {300 * 'a'}", 1, "a: File name too long; set FSAT_DEBUG=1"),
        ("eda --data_dir ~no-such-user/x", 1, "~no-such-user/x: no such folder"),
        ("tag", 2, "No such command 'tag'"),
        ("score a.csv b.csv", 1, "a.csv: cannot be read: No such file or directory"),
        ("main --models conv1d,resnet", 1, "model=resnet: expected one of dummy1d"),
        ("cross_validate --parallel_folds 0", 2, "parallel_folds=0: expected auto or a whole number of at least 1"),
        ("cross_validate --checkpoint_to disk", 2, "checkpoint_to=disk: expected one of local, server"),
    ],
)
def test_wrong_options(command, status, expected, error_line):
    assert expected in error_line(*shlex.split(command), status=status)


def test_a_fold_out_of_range_and_problems_of_a_dataset(tmp_path, signals, capsys):
    data = make_dataset(tmp_path / "bad", clips_per_class=4, test_clips=0)
    assert run(["train_fold", "--fold", "7", "--n_folds", "3", "--data_dir", str(data)]) == 1
    found, error = capsys.readouterr().err.splitlines()
    assert found == f"{data}: 12 clips of 3 classes, 0.1 minutes; layout=fsdkaggle2018: train.csv with audio_train/"
    assert error == "fsat: error: fold=7: there are 3 folds, numbered 0 to 2"
    names = sorted(path.name for path in (data / "audio_train").iterdir())
    (data / "audio_train" / names[0]).write_bytes(b"")
    (data / "audio_train" / names[1]).unlink()
    assert run(["eda", "--data_dir", str(data)]) == 1
    *problems, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith(f"fsat: error: {data}: 2 problems in the training clips; fix the rows listed above, or")
    assert any(f"{names[0]}: empty file" in line and "train.csv:" in line for line in problems)
    assert any(f"{names[1]}: missing file" in line for line in problems)


def test_a_table_in_the_current_folder_is_known_in_another_one(tmp_path, monkeypatch):
    """Runs record the options, and processes on other machines read them."""
    (tmp_path / "data" / "inside").mkdir(parents=True)
    (tmp_path / "mine.csv").touch()
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path)
    options = vars(LayoutOptions(table="mine.csv", annotations="inside"))
    layout = read_source({"data_dir": "data", "on_bad_clip": "error", **options}).layout
    assert layout.given == {"table": str(tmp_path / "mine.csv"), "annotations": "inside"}


def test_a_folder_of_folders_is_described_with_the_time_of_each_step(tmp_path, monkeypatch, signals, capsys):
    """Also with the 8 kHz and the names with digits of a stranger's recordings; nothing is trained or logged."""
    for i in range(8):
        write_wav(
            tmp_path / "My sounds" / ("007", "crow 2")[i % 2] / f"2024-05-0{i}.wav", tone(300 + 40 * i, 0.4, 8000)
        )
    monkeypatch.chdir(tmp_path)
    assert run(["My sounds", "--dry_run", "--models", "dummy1d"]) == 0
    found, decoding, training = capsys.readouterr().out.splitlines()
    assert (
        found
        == "My sounds: 8 clips of 2 classes, 0.1 minutes; layout=class_folders: a folder for each class (007, crow 2)"
    )
    assert re.fullmatch(r"decoding: [\d.]+ (s|min) for each sampling rate, once; eda: [\d.]+ (s|min)", decoding)
    times = r"dummy1d: 4 folds of at most [\d.]+ s, at most [\d.]+ s together"
    assert re.fullmatch(times + r" \(4 folds instead of 10: class 007 has 4 clips\)", training)
    assert [path.name for path in tmp_path.iterdir()] == ["My sounds"]
    assert run(["./no/such"]) == 1
    expected = "no such folder; expected one with clips and their labels (data_dir=DIR)"
    assert capsys.readouterr().err == f"fsat: error: {tmp_path / 'no/such'}: {expected}\n"


@pytest.mark.slow
def test_a_dataset_of_one_label_or_of_one_sound_under_two(store, tmp_path, signals, capsys):
    data = make_dataset(tmp_path / "data", clips_per_class=4, test_clips=0)
    table = (data / "train.csv").read_text()
    (data / "train.csv").write_text(re.sub(",(Bell|Cello|Flute),", ",audio_train,", table))
    for command in (["cross_validate", "--n_folds", "2"], ["train_fold", "--fold", "0", "--n_folds", "2"]):
        assert run([*command, "--data_dir", str(data)]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(
            f"fsat: error: {data}: the only label of 12 training clips is audio_train, and a tagger"
        )
    assert run(["eda", "--data_dir", str(data)]) == 0
    assert "warning: the only label of 12 training clips is audio_train, and a tagger" in capsys.readouterr().err
    (data / "train.csv").write_text(table + "copy.wav,Flute,1\n./bell_01.wav,Bell,1\ncello_01.wav,cello,1\n")
    samples, rate = sf.read(data / "audio_train" / "bell_00.wav", dtype="int16")
    sf.write(data / "audio_train" / "copy.wav", np.stack([samples, samples], axis=1), rate)
    assert run(["eda", "--data_dir", str(data)]) == 1
    listed = capsys.readouterr().err
    assert "train.csv:15: ./bell_01.wav: duplicate row: the file is bell_01.wav in line 5 too" in listed
    assert "train.csv:16: cello_01.wav: the label 'cello' (1 clip, first in line 16) differs from 'Cello' (4" in listed
    (data / "train.csv").write_text(table + "copy.wav,Flute,1\n")
    for command in (["eda"], ["cross_validate", "--n_folds", "2"]):
        assert run([*command, "--data_dir", str(data)]) == 1
        listed = capsys.readouterr().err
        assert "train.csv:2: bell_00.wav: the same sound as copy.wav in line 14, whose label is Flute" in listed
        assert "train.csv:14: copy.wav: the same sound as bell_00.wav in line 2, whose label is Bell" in listed


@pytest.mark.process
def test_the_process_ends_with_the_code_and_the_line(tmp_path):
    process = start_fsat(tmp_path, "127.0.0.1:5055", "ensemble")
    assert process.finish(1) == ""
    expected = "fsat: error: .*127.0.0.1:5055 cannot be used; expected http://HOST:PORT or sqlite:///FILE.*\n"
    assert re.fullmatch(expected, process.stderr)


def test_it_lists_its_commands_and_names_its_version(signals, capsys):
    assert run([]) == 2
    output, messages = capsys.readouterr()
    assert "train_fold      Train one fold" in output
    assert "..." not in output.partition("Commands:")[2]  # no summary is cut
    assert messages == ""
    assert run(["--version"]) == 0
    assert fsat.__version__ in capsys.readouterr().out


def test_a_traceback_only_with_debug(tmp_path, signals, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSAT_DEBUG", "")
    arguments = ["train_fold", "--fold", "0", "--data_dir", "nowhere"]
    for more, expected in (([], False), (["--debug"], True), ([], True)):  # --debug sets FSAT_DEBUG
        assert run([*arguments, *more]) == 1
        assert ("Traceback" in capsys.readouterr().err) == expected


@pytest.mark.slow
def test_sample_writes_a_dataset_once(tmp_path, error_line, capsys):
    assert run(["sample", ".", "--clips_per_class", "10"]) == 0
    assert "train.csv" in {path.name for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert f"{tmp_path}: is not empty" in error_line("sample", ".")


def test_score_prints_public_private_and_both(shared, signals, capsys):
    tables = shared / "data" / "fsdkaggle2018"
    assert run(["score", str(tables / "sample_submission.csv"), str(tables / "test_post_competition.csv")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["part", "clips"], ["Public", "301"], ["Private", "1299"], ["both", "1600"]]
