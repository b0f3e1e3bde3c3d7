"""`python -m fsat download`: whole or not at all, from servers that break off, lie, stall and go away."""

import os
import re
import shutil
import signal
import threading
from dataclasses import replace

import pytest
from clip_files import mounted_disk
from helpers import error_line, one_line, wait_for
from zip_server import ZipServer, files_of, kill_downloads, small_esc50, small_fsdkaggle2018, with_archives, zipped

from fsat import interrupts
from fsat.cli import run
from fsat.data.manifest import read_manifest
from fsat.download import fetch
from fsat.download.install import download
from fsat.download.published_datasets import DATASETS, FSDKAGGLE2018
from fsat.errors import DataError, FsatError


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Both datasets with a few clips: the dataset, its archives, and what it becomes, by name."""
    makers = {"fsdkaggle2018": small_fsdkaggle2018, "esc50": small_esc50}
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in makers.items()}


@pytest.fixture
def server(small):
    archives = {name: data for _, zips, _ in small.values() for name, data in zips.items()}
    server = ZipServer(archives).start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def known(small, monkeypatch):
    """The small datasets under the names of the real ones, and no waiting between attempts."""
    for name, (dataset, _, _) in small.items():
        monkeypatch.setitem(DATASETS, name, dataset)
    monkeypatch.setattr(fetch, "WAITS", (0.0,))


def test_what_is_known_of_fsdkaggle2018_is_what_zenodo_says(shared):
    said = (shared / "data" / "README.md").read_text()
    assert FSDKAGGLE2018.base_url == "https://zenodo.org/records/2552860/files"
    assert "record 2552860" in said
    for archive in FSDKAGGLE2018.archives:
        assert re.search(rf"`{archive.name}`\s+(md5 )?{archive.checksum.removeprefix('md5:')}", said), archive.name
    assert sum(FSDKAGGLE2018.counts.values()) == 9473 + 1600


def test_fsdkaggle2018_becomes_a_dataset_with_a_command_for_it(server, small, tmp_path, signals, capsys):
    folder = tmp_path / "my data"
    arguments = ["download", "fsdkaggle2018", str(folder), "--base_url", server.url]
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert f"next: mlflow run . -P data_dir='{folder}'" in said
    assert "licence: CC BY 4.0" in said
    assert "cite: E. Fonseca" in said
    assert "6 clips in FSDKaggle2018.audio_train/, 2 clips in FSDKaggle2018.audio_test/, of 3 classes" in said
    assert files_of(folder) == small["fsdkaggle2018"][2]
    assert not list(folder.glob(".*"))

    asked = len(server.asked)
    assert run(arguments) == 0
    assert "is complete; nothing was downloaded" in capsys.readouterr().out
    assert len(server.asked) == asked
    assert (len(read_manifest(folder).train), len(read_manifest(folder).test)) == (6, 2)


def test_esc50_becomes_a_manifest_with_its_folds(server, small, tmp_path):
    lines = download("esc50", tmp_path, server.url)
    assert files_of(tmp_path) == small["esc50"][2]
    assert any("1 recording with clips in more than one (101)" in line for line in lines)
    manifest = read_manifest(tmp_path)
    assert manifest.labels == ["dog", "door_wood_knock"]
    columns = [manifest.train[name].tolist() for name in ("fold", "group", "manually_verified")]
    assert columns == [["1", "1", "2", "2"], ["100", "101", "102", "101"], [1] * 4]


def test_zips_of_the_publishers_server_can_be_kept_and_used_again(server, small, tmp_path, monkeypatch):
    dataset, zips, files = small["fsdkaggle2018"]
    monkeypatch.setitem(DATASETS, "fsdkaggle2018", replace(dataset, base_url=f"{server.url}/records/1/files"))
    download("fsdkaggle2018", tmp_path / "a", keep_zips=True)
    assert [asked.name for asked in server.asked] == [archive.name for archive in dataset.archives]
    assert files_of(tmp_path / "a" / ".downloads") == zips
    shutil.copytree(tmp_path / "a" / ".downloads", tmp_path / "b" / ".downloads")
    server.files.clear()  # archives that somebody has put there need no server
    download("fsdkaggle2018", tmp_path / "b")
    assert files_of(tmp_path / "b") == files


def test_an_archive_is_removed_before_the_next_one_is_fetched(server, tmp_path, monkeypatch):
    zips, run_download = [], fetch.Download.run

    def look(self, url):
        zips.append(list(self.part.parent.glob("*.zip")))
        run_download(self, url)

    monkeypatch.setattr(fetch.Download, "run", look)
    download("fsdkaggle2018", tmp_path, server.url)
    assert zips == [[], [], []]


def test_folders_with_other_things_and_unwritable_ones_are_refused(server, tmp_path):
    line = error_line(FsatError, download, "esc50", "/proc/nowhere", server.url)
    assert re.match("/proc/nowhere: cannot be written: .*choose another folder", line)
    (tmp_path / "notes.txt").write_text("mine")
    line = error_line(DataError, download, "esc50", tmp_path, server.url)
    assert "has other files in it, such as notes.txt; expected a new or empty folder" in line
    assert "is a file" in error_line(DataError, download, "esc50", tmp_path / "notes.txt", server.url)
    assert files_of(tmp_path) == {"notes.txt": b"mine"}

    download("esc50", tmp_path / "esc50", server.url)
    (tmp_path / "esc50" / "audio_train" / "1-100-A-0.wav").unlink()  # it is complete no more
    line = error_line(DataError, download, "esc50", tmp_path / "esc50", server.url)
    assert "has other files in it, such as LICENSE" in line

    server.always = {"status": 404}
    line = error_line(FsatError, download, "fsdkaggle2018", tmp_path / "new", server.url)
    assert "does not have it (status 404)" in line
    line = error_line(DataError, download, "esc50", tmp_path / "new", server.url)
    assert "has an interrupted download of fsdkaggle2018" in line


def test_only_one_process_at_a_time_downloads_into_a_folder(server, tmp_path):
    owner = tmp_path / ".downloads" / "owner"
    owner.parent.mkdir()
    owner.write_text("1")  # as a process that was killed leaves them
    owner.with_name("lock").touch()
    server.always = {"slow": 0.05}
    first = threading.Thread(target=download, args=("fsdkaggle2018", tmp_path, server.url))
    first.start()
    wait_for(lambda: owner.read_text() == str(os.getpid()) and server.asked)
    line = error_line(FsatError, download, "fsdkaggle2018", tmp_path, server.url)
    assert f"process {os.getpid()} is downloading into it" in line
    server.always = {}
    first.join()
    assert read_manifest(tmp_path).train["label"].nunique() == 3


def test_content_of_another_dataset_is_not_installed(server, small, tmp_path, monkeypatch):
    dataset = small["esc50"][0]
    for change, expected in (
        ({"counts": {"train.csv": 6}}, "expected 6 different ones"),
        ({"n_folds": 4}, "in folds of {'1': 2, '2': 2}"),
        ({"wav": (800, 44_100)}, "has 800 samples at 8000 Hz, expected 800 samples at 44100 Hz"),
    ):
        monkeypatch.setitem(DATASETS, "esc50", replace(dataset, **change))
        folder = tmp_path / expected[:4]
        assert expected in error_line(DataError, download, "esc50", folder, server.url)
        assert [path.name for path in folder.iterdir()] == [".downloads"]

    dataset, archives, full = small["fsdkaggle2018"]
    lacking = {name: data for name, data in full.items() if "audio_train" in name and "bell_01" not in name}
    archives = {**archives, "FSDKaggle2018.audio_train.zip": zipped(lacking)}
    monkeypatch.setitem(DATASETS, "fsdkaggle2018", with_archives(dataset, archives))
    server.files |= archives
    line = error_line(DataError, download, "fsdkaggle2018", tmp_path / "lacking", server.url)
    assert "1 clip of 6 not in FSDKaggle2018.audio_train/, such as bell_01.wav" in line
    assert [path.name for path in (tmp_path / "lacking").iterdir()] == [".downloads"]


def test_no_network(server, tmp_path, monkeypatch):
    line = error_line(FsatError, download, "esc50", tmp_path / "a", "http://mirror.invalid", retries=0)
    assert "the proxy of the environment (https_proxy) cannot be used" in line
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name)
    line = error_line(FsatError, download, "esc50", tmp_path / "b", "http://me:secret@mirror.invalid", retries=0)
    assert "unknown host, or no network" in line
    assert "secret" not in line
    line = error_line(FsatError, download, "esc50", tmp_path / "c", "ftp://x")
    assert line.startswith("base_url=ftp://x: expected an address that begins with http")
    assert not (tmp_path / "c").exists()
    line = error_line(FsatError, download, "esc50", tmp_path / "d", "http://127.0.0.1:99999", retries=0)
    assert line.startswith("http://127.0.0.1:99999/")


@pytest.fixture
def small_disk(tmp_path):
    with mounted_disk(tmp_path / "disk", "400k") as disk:
        yield disk


def test_a_disk_that_is_too_small_or_fills_up(server, small, small_disk, monkeypatch):
    dataset, _, files = small["fsdkaggle2018"]
    line = error_line(FsatError, download, "fsdkaggle2018", small_disk / "a", server.url)
    assert re.search("no space left: FSDKaggle2018 needs about .* more, .* are free", line)
    assert server.asked == []

    tiny = tuple(replace(archive, unpacked_bytes=archive.unpacked_bytes // 9) for archive in dataset.archives)
    monkeypatch.setitem(DATASETS, "fsdkaggle2018", replace(dataset, archives=tiny))
    monkeypatch.setattr("fsat.download.install._check_space", lambda *_: None)
    failures = []
    for free in range(0, 300_000, 8192):
        (small_disk / "ballast").unlink(missing_ok=True)
        (small_disk / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - free)))
        try:
            download("fsdkaggle2018", small_disk / "a", server.url)
            break
        except FsatError as error:
            failures.append((one_line(error), bool(list(small_disk.glob("a/.downloads/*_train.zip")))))
        assert {path.name for path in small_disk.glob("a/*")} <= {".downloads"}
        assert not (small_disk / "a" / ".downloads" / "unfinished").exists()
    assert all(re.search("no space left .*make room, and give the same command", line) for line, _ in failures)
    assert {unpacking for _, unpacking in failures} == {False, True}
    assert files_of(small_disk / "a") == files


def test_a_stopped_download_resumes_there(server, small, tmp_path, signals, capsys):
    folder, name = tmp_path / "data", "FSDKaggle2018.audio_train.zip"
    part = folder / ".downloads" / f"{name}.part"

    def stop():
        wait_for(lambda: part.exists() and part.stat().st_size > 3000)
        os.kill(os.getpid(), signal.SIGTERM)

    server.always = {"slow": 0.01}
    threading.Thread(target=stop).start()
    with pytest.raises(interrupts.Interrupted):
        download("fsdkaggle2018", folder, server.url)
    message = rf"{name}: \S+ kB are kept; the same command resumes there"
    assert re.fullmatch(message, capsys.readouterr().err.splitlines()[-1])
    assert [path.name for path in folder.iterdir()] == [".downloads"]
    server.always, interrupts.state.first = {}, 0
    download("fsdkaggle2018", folder, server.url)
    assert files_of(folder) == small["fsdkaggle2018"][2]
    assert re.fullmatch(r" bytes=\d{4,}-", " ".join(asked.range for asked in server.asked if asked.name == name))


@pytest.mark.process
@pytest.mark.parametrize(("name", "share"), [("fsdkaggle2018", 0.12), ("esc50", 0.2)])
def test_killed_at_any_step_it_goes_on_and_half_a_dataset_is_none(server, small, tmp_path, name, share):
    n_kills, n_steps = kill_downloads(name, server.url, tmp_path, small[name], share)
    assert n_kills > 10
    assert n_steps > 60
