"""A machine without a home folder, or with one that cannot be written: fsat works, and says what it uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT
from fsat_process import start_fsat
from helpers import error_line, make_dataset, read_csv, tone, write_wav
from stores import current_store, new_store
from taggers import ONE_OF_EACH, register_tagger, write_tagger

from fsat.errors import FsatError
from fsat.user_folders import can_be_written, settle_folders

NOBODY = 54321
"""A user that the user database does not know."""

VARIABLES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Set a folder for temporary files of the test's own; `monkeypatch` restores what `settle_folders` sets."""
    for name in (*VARIABLES, "USER"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in VARIABLES[1:]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_home_that_is_usable_stays(temporary, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(temporary))
    before = dict(os.environ)
    settle_folders()
    assert dict(os.environ) == before
    assert capsys.readouterr().err == ""
    assert not list(temporary.iterdir())


def test_a_missing_home_is_replaced_and_said_once(temporary, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(temporary / "nowhere"))
    settle_folders()
    folder = temporary / f"fsat-home-{os.getuid()}"
    assert Path.home() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: HOME={temporary}/nowhere is not a folder: using {folder} for settings and caches")
    settle_folders()  # as a process does that this one starts
    assert capsys.readouterr().err == ""


def test_a_cache_that_cannot_be_written_is_replaced(temporary, monkeypatch, capsys):
    (temporary / ".cache").write_text("a file in its place")
    (temporary / ".config").write_text("a file in its place")
    monkeypatch.setenv("HOME", str(temporary))
    settle_folders()
    folder = temporary / f"fsat-home-{os.getuid()}"
    assert os.environ["XDG_CACHE_HOME"] == str(folder / ".cache")
    assert os.environ["MPLCONFIGDIR"] == str(folder / "matplotlib")
    assert os.environ["HOME"] == str(temporary)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {temporary}/.cache cannot be written: using {folder}/.cache for caches; set XDG")


def test_a_folder_of_another_user_is_not_used(temporary, monkeypatch):
    monkeypatch.setenv("HOME", str(temporary / "nowhere"))
    (temporary / "theirs").mkdir()
    (temporary / f"fsat-home-{os.getuid()}").symlink_to(temporary / "theirs")
    assert "belongs to another user; set HOME" in error_line(FsatError, settle_folders)


def test_no_folder_for_temporary_files_names_the_variable(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    line = error_line(FsatError, settle_folders)
    assert line.startswith("TMPDIR=/nowhere: no folder for temporary files can be written")


def test_a_folder_that_does_not_exist_can_be_written_if_it_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert can_be_written(tmp_path / "new" / "newer")
    assert not can_be_written(tmp_path / "file" / "new")


def as_nobody() -> list[str]:
    """Return a command that runs another as a user without a name, in a namespace of users; skip where it cannot."""
    command = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no program unshare, or it may not make a namespace of users")
    return command


@pytest.mark.process
def test_a_user_without_home_and_name_tags_files(tmp_path):
    command = [*as_nobody(), sys.executable, "-m", "fsat", "predict", "--input", "clip.wav"]
    with current_store(tmp_path):
        register_tagger(write_tagger(tmp_path / "tagger", ONE_OF_EACH, n_folds=1))
    write_wav(tmp_path / "clip.wav", tone(700, 1.2, 16000), 16000)
    removed = (*VARIABLES, "USER", "LOGNAME", "LNAME", "USERNAME", "FSAT_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in removed}
    env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    first = (
        f"warning: HOME is not set, and the user database has no entry of user {NOBODY}: using {tmp_path}/fsat-home-"
    )
    assert result.stderr.startswith(first)
    assert result.stderr.count("set HOME to a folder that you can write to") == 1
    (row,) = read_csv(tmp_path / "tags.csv")
    assert not row["error"]
    assert not list(tmp_path.glob("~*"))


@pytest.mark.process
def test_training_goes_on_without_a_home(tmp_path):
    data = make_dataset(tmp_path / "tones")
    env = {"HOME": str(tmp_path / "nowhere"), "TMPDIR": str(tmp_path)}
    uri, config = new_store(tmp_path), {"model": "dummy1d", "n_folds": 2, "max_epochs": 1}
    fold = start_fsat(tmp_path, uri, "train_fold", fold=0, data_dir=data, env=env, **config)
    assert len(fold.finish()) == 32
    assert fold.stderr.count(f"HOME={tmp_path}/nowhere is not a folder") == 1
    assert not (tmp_path / "nowhere").exists()
