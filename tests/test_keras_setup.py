"""Settings of Keras and of TensorFlow outside of fsat: results do not depend on them, or fsat says that they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from helpers import error_line, read_csv, tone, write_wav
from stores import current_store
from taggers import ONE_OF_EACH, register_tagger, write_tagger

from fsat.errors import ConfigError
from fsat.models import import_keras, keras_setup
from fsat.tagging import Tagger

OTHERS = {"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first", "backend": "jax"}
VARIABLES = {
    "KERAS_BACKEND": "junk", "KERAS_MAX_EPOCHS": "junk", "KERAS_NNX_ENABLED": "1", "TF_USE_LEGACY_KERAS": "1",
}  # fmt: skip


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.process
def test_tags_do_not_depend_on_keras_json_and_the_environment(tmp_path):
    with current_store(tmp_path):
        tagger = write_tagger(tmp_path / "tagger", ONE_OF_EACH, n_folds=1)
        register_tagger(tagger)
        clip = write_wav(tmp_path / "clip.wav", tone(700, 1.2, 16000), 16000)
        (tmp_path / "keras.json").write_text(json.dumps(OTHERS))
        options = ["--input", str(clip), "--output", "tags.csv"]
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        settings = {"KERAS_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": uri, **VARIABLES}
        result = run_python("-m", "fsat", "predict", *options, **settings)
        assert result.returncode == 0, result.stderr
        assert "warning" not in result.stderr
        (row,) = read_csv(tmp_path / "tags.csv")
        scores, _ = Tagger(tagger).scores([str(clip)])
        written = [row[name] for name in ("score", "score_2", "score_3")]
        assert written == [f"{score:.6f}" for score in np.sort(scores[0])[::-1]]
    assert json.loads((tmp_path / "keras.json").read_text()) == OTHERS


@pytest.mark.process
@pytest.mark.parametrize("content", ["{{{", '{"floatx": "junk"}', None])
def test_a_keras_json_that_cannot_be_read_does_not_matter(content, tmp_path):
    if content is None:
        (tmp_path / "keras.json").mkdir()
    else:
        (tmp_path / "keras.json").write_text(content)
    code = (
        "from fsat.models import import_keras as k; print(k().config.floatx(), k().config.epsilon()); "
        "import tensorflow as tf; print(tf.config.experimental.tensor_float_32_execution_enabled())"
    )
    result = run_python("-c", code, KERAS_HOME=str(tmp_path))
    assert result.stdout == "float32 1e-07\nFalse\n", result.stderr


@pytest.mark.parametrize("name", keras_setup.KERAS_CONFIG)
def test_a_keras_that_was_imported_with_other_settings_is_refused(name, tmp_path, monkeypatch):
    config = import_keras().config
    if name == "backend":  # cannot be changed after the import
        monkeypatch.setattr(config, "backend", lambda: "jax")
    else:
        set_value = getattr(config, f"set_{name}")
        set_value(OTHERS[name])
    try:
        line = error_line(ConfigError, Tagger, write_facts(tmp_path))
    finally:
        if name != "backend":
            set_value(keras_setup.KERAS_CONFIG[name])
    expected = f"with {name}={OTHERS[name]}: expected {name}={keras_setup.KERAS_CONFIG[name]};"
    assert expected in line
    assert "keras.json" in line


def write_facts(folder):
    """Write the facts of a tagger whose weights are never read."""
    from fsat.config import Config
    from fsat.study import RECIPE

    member = {"study": "s", "fold": 0, "config": Config().to_dict(), "weights": "none.h5", "sha256": ""}
    facts = {"recipe": RECIPE, "labels": ["a", "b"], "blend": "geometric", "study_weights": {}, "members": [member]}
    (folder / "tagger.json").write_text(json.dumps(facts))
    return folder


def test_variables_that_change_scores_are_named(monkeypatch, capsys):
    for name in keras_setup.CHANGES_RESULTS:
        monkeypatch.delenv(name, raising=False)
    keras_setup._warn_of_variables()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    keras_setup._warn_of_variables()
    assert capsys.readouterr().err.startswith("warning: TF_ENABLE_ONEDNN_OPTS=0: changes scores slightly; unset it")
