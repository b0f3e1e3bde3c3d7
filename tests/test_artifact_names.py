"""Artifacts have the name that was said, on a server and in a local store, and can be downloaded by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from helpers import make_dataset, tone, write_wav
from servers import MlflowServer
from stores import current_store
from taggers import register_tagger, write_tagger

from fsat.cli import run
from fsat.commands.predict import predict
from fsat.data.manifest import read_manifest
from fsat.tracking import artifact_names, runs

AS_NAMED = (
    "tags.csv", "two  words.csv", "grün.csv", "gru\u0308n.csv", ".hidden.csv", "..a.csv", "12:30.csv", "a;b&c=d+e.csv",
    "'q\".csv", "<x>[y]{z}.csv", "a|b^`~$!@,*.csv", "(1).csv", "x..csv", "-x.csv", "\U0001f600.csv", "x" * 240 + ".csv",
)  # fmt: skip
RENAMED = {
    "tags#1.csv": "tags_1.csv", "a?b.csv": "a_b.csv", "100%25.csv": "100_25.csv", "50%.csv": "50_.csv",
    " lead.csv": "_lead.csv", "back\\s.csv": "back_s.csv", "C:x.csv": "C_x.csv", "file:x.csv": "file_x.csv",
    "http:x.csv": "http_x.csv", "a\nb.csv": "a_b.csv", "a\x7fb.csv": "a_b.csv", os.fsdecode(b"\xff.csv"): "_.csv",
    ".artifact.uploading.x.csv": "_.artifact.uploading.x.csv", "%2e%2e.csv": "_2e_2e.csv",
}  # fmt: skip


@pytest.fixture(scope="module", params=["file", pytest.param("server", marks=pytest.mark.server)])
def any_store(request, tmp_path_factory) -> Iterator[Path]:
    """Use a local store, or a server, in a folder."""
    folder = tmp_path_factory.mktemp(request.param)
    with current_store(folder), ExitStack() as stack:
        if request.param == "server":
            (folder / "server").mkdir()
            mlflow.set_tracking_uri(stack.enter_context(MlflowServer(folder / "server")).uri)
        yield folder


def test_files_arrive_under_the_name_that_is_announced(any_store, capsys) -> None:
    own = mlflow.MlflowClient()
    for name in (*AS_NAMED, *RENAMED):
        path = any_store / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content of {name!r}")
        expected = RENAMED.get(name, name)
        capsys.readouterr()
        with runs.tracked("test", "test") as run_id:
            artifact_names.announce(path)
            runs.log_file(path)
        said = capsys.readouterr().err
        assert (f"is named {expected}, as MLflow cannot" in said) == (expected != name), name
        assert [file.path for file in own.list_artifacts(run_id)] == [expected]
        assert Path(own.download_artifacts(run_id, expected)).read_text() == f"content of {name!r}"


@pytest.mark.slow
def test_commands_announce_the_name_before_they_work(any_store, capsys, signals) -> None:
    register_tagger(write_tagger(any_store / "tagger", n_folds=1))
    for i in range(2):
        write_wav(any_store / "my #1 clips?" / f"{i}%25.wav", tone(300, 0.3, 8000), 8000)
    assert run(["predict", "--input", "my #1 clips?", "--output", "tags#1 (a).csv", "--workers", "1"]) == 0
    said = capsys.readouterr().err
    assert said.index("note: the artifact of tags#1 (a).csv is named tags_1 (a).csv") < said.index("predict: run ")
    (tagging,) = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'predict'", output_format="list")
    own = mlflow.MlflowClient()
    assert [file.path for file in own.list_artifacts(tagging.info.run_id)] == ["tags_1 (a).csv"]
    table = (any_store / "tags#1 (a).csv").read_text()
    assert Path(own.download_artifacts(tagging.info.run_id, "tags_1 (a).csv")).read_text() == table
    assert "/artifacts/tags_1%20%28a%29.csv)" in tagging.data.tags["mlflow.note.content"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr("fsat.commands.predict.runs.tracked", lambda *_: (_ for _ in ()).throw(InterruptedError))
        predict("my #1 clips?", Path("b?.csv"), "champion")
    assert "the artifact of b?.csv is named b_.csv" in capsys.readouterr().err


def test_a_dataset_keeps_the_name_of_its_folder(any_store) -> None:
    for name in ("100%25 #a?b", "s3:bucket", "Grün & <b>", "a'b\"c"):
        data = make_dataset(any_store / name, clips_per_class=1, test_clips=0)
        with runs.tracked("test", "test") as run_id:
            runs.log_dataset(read_manifest(data))
        logged = mlflow.get_run(run_id)
        assert logged.data.tags["fsat.data_dir"] == str(data)
        assert [item.dataset.name for item in logged.inputs.dataset_inputs] == [name]
