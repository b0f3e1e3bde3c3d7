"""`python -m fsat download` of a pretrained network: a model with its checksum, and the descriptor of its entry."""

import json
import re
from dataclasses import replace

import pytest
from helpers import error_line
from zip_server import ZipServer, files_of, kill_downloads, small_backbone, with_archives, zipped

from fsat.cli import run
from fsat.download import fetch
from fsat.download.install import download
from fsat.download.published_backbones import BACKBONES
from fsat.errors import DataError, FsatError

SMALL = {name: small_backbone(name) for name in BACKBONES}
KEYS = ["file", "format", "sampling_rate", "window", "hop", "input", "output", "size", "license", "source", "sha256"]


@pytest.fixture
def server():
    server = ZipServer({name: data for _, zips, _ in SMALL.values() for name, data in zips.items()}).start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The small backbones under the names of the real ones, and no waiting between attempts."""
    for name, (backbone, _, _) in SMALL.items():
        monkeypatch.setitem(BACKBONES, name, backbone)
    monkeypatch.setattr(fetch, "WAITS", (0.0,))


def test_entries_say_all_that_a_descriptor_has(monkeypatch):
    monkeypatch.undo()
    for name, backbone in BACKBONES.items():
        archive = backbone.archives[0]
        assert re.fullmatch(r"https://\S+/" + re.escape(archive.address or archive.name) + r"(\?\S+)?", backbone.source)
        assert re.fullmatch("sha256:[0-9a-f]{64}", archive.checksum), name
        assert re.fullmatch("[0-9a-f]{64}", backbone.sha256), name
        assert backbone.file in archive.targets.values(), name
        assert backbone.window is None or (backbone.window * backbone.sampling_rate).is_integer(), name
        assert sum(key in backbone.output for key in ("name", "index", "signature", "tensor")) == 1, name
        assert list(backbone.descriptor) == KEYS, name
        assert set(backbone.descriptor["input"]) == {"name", "rank", "scaling"}, name
    assert [name for name, backbone in BACKBONES.items() if not backbone.is_commercial] == ["birdnet", "birdnet3"]
    assert [name for name, backbone in BACKBONES.items() if backbone.was_run] == ["birdnet"]


def test_the_help_names_each_entry_with_its_size_and_licence(monkeypatch, capsys):
    monkeypatch.undo()
    assert run(["download", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, backbone in BACKBONES.items():
        line = next(line.strip() for line in lines if line.strip().startswith(f"{name}: "))
        assert f" {backbone.archives[0].fetched_bytes / 1e6:.0f} MB; " in line
        assert backbone.licence.startswith(line.rpartition("; ")[2])


@pytest.mark.parametrize("name", SMALL)
def test_it_becomes_a_folder_with_model_and_descriptor(server, tmp_path, signals, capsys, name):
    backbone, _, files = SMALL[name]
    folder = tmp_path / "my backbone"
    arguments = ["download", name, str(folder), "--base_url", server.url]
    assert run(arguments) == 0
    assert files_of(folder) == files
    said = capsys.readouterr().out.splitlines()
    assert f"{folder}: {backbone.title} is complete" in said
    assert f"licence: {backbone.licence}{'; not for commercial use' * name.startswith('birdnet')}" in said
    assert f"cite: {backbone.citation}" in said
    ran = "yes" if name == "birdnet" else "no; the description is that of its publisher"
    assert f"was run with fsat: {ran}" in said
    assert json.loads((folder / "backbone.json").read_text()) == backbone.descriptor
    assert said[-1] == f"next: mlflow run . -e cross_validate -P model=embedding -P backbone='{folder}' -P data_dir=DIR"

    asked = len(server.asked)
    assert run(arguments) == 0
    assert "is complete; nothing was downloaded" in capsys.readouterr().out
    assert len(server.asked) == asked


def test_it_says_what_the_network_takes_and_gives(server, tmp_path):
    lines = download("birdnet", tmp_path / "a", server.url)
    assert "(tflite), 48000 Hz, windows of 3 s, 1024 values for each" in lines[1]
    assert "windows of any length, 527 values" in download("efficientat", tmp_path / "b", server.url)[1]


def test_the_publishers_address_is_asked_and_the_file_is_kept_and_used_again(server, tmp_path, monkeypatch):
    backbone, zips, files = SMALL["yamnet"]
    backbone = replace(backbone, base_url=f"{server.url}/models")
    monkeypatch.setitem(BACKBONES, "yamnet", backbone)
    server.files["1"] = zips["yamnet.tflite"]
    download("yamnet", tmp_path / "a", keep_zips=True)
    assert [asked.name for asked in server.asked] == ["1"]
    assert backbone.source == f"{server.url}/models/1?lite-format=tflite"
    assert files_of(tmp_path / "a" / ".downloads") == zips
    (tmp_path / "b" / ".downloads").mkdir(parents=True)
    (tmp_path / "b" / ".downloads" / "yamnet.tflite").write_bytes(zips["yamnet.tflite"])
    server.files.clear()  # a file that somebody has put there needs no server
    download("yamnet", tmp_path / "b")
    assert {**files_of(tmp_path / "b"), "backbone.json": b""} == {**files, "backbone.json": b""}


@pytest.mark.parametrize("name", ["birdnet", "perch"])
def test_it_resumes_where_it_broke_off(server, tmp_path, name):
    server.faults = [{"cut": 3000}]
    line = error_line(FsatError, download, name, tmp_path, server.url, retries=0)
    assert "3.0 kB are kept; the same command resumes there" in line
    download(name, tmp_path, server.url)
    assert server.asked[-1].range == "bytes=3000-"
    assert files_of(tmp_path) == SMALL[name][2]


@pytest.mark.parametrize(("name", "body", "expected"), [
    ("birdnet", zipped({"x": b"x"}), "wrong checksum: received sha256"),
    ("perch", b"\x08other", "wrong checksum: received sha256"),
    ("yamnet", b"\x1c\0\0\0TFL3 other", "wrong checksum: received sha256"),
    ("yamnet", bytes(5000), "the server sent something else, expected a TensorFlow Lite model"),
    ("perch", b"version https://git-lfs.github.com/spec/v1", "sent something else, expected an ONNX model"),
])  # fmt: skip
def test_another_file_is_refused_and_removed(server, tmp_path, name, body, expected):
    server.always = {"body": body, "no_range": True}
    assert re.search(expected, error_line(FsatError, download, name, tmp_path, server.url, retries=0))
    assert [path.name for path in tmp_path.iterdir()] == [".downloads"]
    server.always = {}
    download(name, tmp_path, server.url)
    assert files_of(tmp_path) == SMALL[name][2]


def test_an_archive_with_another_model_is_not_installed(server, tmp_path, monkeypatch):
    backbone, zips, _ = SMALL["birdnet"]
    zips = {name: zipped(dict.fromkeys(backbone.archives[0].targets, b"x")) for name in zips}
    monkeypatch.setitem(BACKBONES, "birdnet", with_archives(backbone, zips))
    server.files |= zips
    line = error_line(DataError, download, "birdnet", tmp_path, server.url)
    assert re.search(rf"V2.4_Model_FP32.tflite: has SHA-256 \w+, expected {backbone.sha256}; remove {tmp_path}", line)
    assert [path.name for path in tmp_path.iterdir()] == [".downloads"]


def test_a_damaged_model_is_not_taken_for_complete(server, tmp_path):
    download("perch", tmp_path, server.url)
    (tmp_path / "perch_v2.onnx").write_bytes(b"\x08damaged")
    line = error_line(DataError, download, "perch", tmp_path, server.url)
    assert "has other files in it, such as backbone.json; expected a new or empty folder" in line


def test_a_file_system_without_links(server, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    download("perch", tmp_path, server.url)
    assert files_of(tmp_path) == SMALL["perch"][2]


@pytest.mark.process
def test_killed_at_any_step_it_goes_on_and_half_a_backbone_is_none(server, tmp_path):
    n_kills, n_steps = kill_downloads("perch", server.url, tmp_path, SMALL["perch"], 0.35)
    assert n_kills > 5
    assert n_steps > 30
