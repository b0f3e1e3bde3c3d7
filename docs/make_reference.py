"""Write the generated parts of the documentation: docs/configuration.md and the option tables of docs/commands.md.

Run ``python -m docs.make_reference`` after changing settings or options; a test fails if the pages are out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from fsat.cli import cli
from fsat.config import Config
from fsat.layout_options import LayoutOptions
from fsat.model_presets import MODELS, PRESETS

CONFIGURATION = Path(__file__).with_name("configuration.md")
COMMANDS = Path(__file__).with_name("commands.md")

PRESET_DESCRIPTIONS = {
    "dummy1d": "the notebook's baseline: it sees only the largest sample",
    "conv1d": "the notebook's 1D convolution on the waveform",
    "conv2d_mfcc": "the notebook's 2D convolution on MFCC",
    "cnn_logmel": "fsat's own compact convolutional network on log-mel spectrograms",
    "embedding": "a linear layer or a small network on the embeddings of a pretrained network (`backbone`)",
    "conv1d_fsat": "the notebook's 1D network with fsat's recipe",
    "conv2d_mfcc_fsat": "the notebook's 2D network with fsat's recipe",
    "quick": "the notebook's smallest configuration, for a first test",
}
FEATURES = {"waveform": "waveform", "mfcc": "MFCC", "logmel": "log-mel spectrogram", "embedding": "embeddings"}

VARIABLES = {
    "FSAT_DATA_DIR": ("generated sounds", "data folder if `data_dir` is not given"),
    "FSAT_CACHE_DIR": ("the platform's", "cache folder: decoded clips, embeddings, checkpoints, generated sounds"),
    "FSAT_BACKBONE_GB": ("4", "maximum memory of a pretrained network while it is checked, in GB"),
    "FSAT_THREADS": ("4", "threads per operation; other numbers change the last digits of results"),
    "FSAT_SERVER_WAIT": ("600", "seconds to retry an unreachable tracking server"),
    "FSAT_HEARTBEAT": ("20", "seconds between two heartbeats of a run; must be the same for all users of a server"),
    "FSAT_SERVE_MAX_MB": ("64", "[serving](serving.md): maximum size of a request, in MB"),
    "FSAT_SERVE_MAX_SECONDS": ("600", "serving: maximum length of a clip, in seconds"),
    "FSAT_SERVE_MAX_CLIPS": ("64", "serving: maximum number of clips per request"),
    "FSAT_DEBUG": ("", "1 adds the traceback to errors, as `--debug` does"),
}
"""Environment variables: default and meaning."""

TEXT = """\
# Configuration

<!-- Written by `python -m docs.make_reference` from fsat.config.Config; edit that, or the text in the script. -->

Commands on this page use `mlflow run`; [Running commands](mlflow-run.md) shows how to run them without conda.

`Config` (`fsat/config.py`) holds all settings that training, features and inference share. Each setting is

- an option: `-P learning_rate=0.0005` with `mlflow run`, `--learning_rate 0.0005` with `python -m fsat`;
- a parameter of each fold run, and a field of its `config.json`;
- checked before anything starts: the error names the setting, its value and the allowed values;
- part of the study's id if it changes predictions. The id is a hash of these settings, the dataset, the order of
  labels, and a number that increases when fsat's results change.

```
mlflow run . -e train_fold -P fold=0 -P model=conv1d -P learning_rate=0.0005
python -m fsat train_fold --fold 0 --model conv1d --learning_rate 0.0005
```

`-P model=NAME` also sets the values of the model's preset, unless an option says otherwise. `-P preset=NAME` selects a
preset and its model.

## Settings

| setting | default | allowed | meaning |
| --- | --- | --- | --- |
{settings}

Spectrogram augmentation (`gain`, `stretch`, `mel_shift`, `time_mask`, `mel_mask`) and `eval_duration` are for models on
log-mel spectrograms; other models reject them.

## Presets

| preset | description | values other than the defaults |
| --- | --- | --- |
{presets}

## Models

| model | features | shortest crop |
| --- | --- | --- |
{models}

The length of a crop is `sampling_rate` times `audio_duration`.

## Environment variables

| variable | default | meaning |
| --- | --- | --- |
{variables}

MLflow's variables apply too, such as `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and `MLFLOW_TRACKING_USERNAME`.

Keras's settings do not apply: fsat reads neither `keras.json` nor `KERAS_BACKEND` and other variables of Keras, as they
would change scores without a word. A Python program that has imported Keras with other settings cannot load a tagger.
Variables by which TensorFlow or oneDNN compute in another way, such as `TF_ENABLE_ONEDNN_OPTS`, apply with a warning.

A home folder is not needed: without one, settings and caches go to `fsat-home-UID` in the folder for temporary files
(`TMPDIR`), and a warning says so. `mlflow run` and `mlflow models serve` themselves need `HOME` if the user database
does not know the user: `export HOME=/tmp` is enough.
"""


def main() -> None:
    """Write both pages."""
    CONFIGURATION.write_text(configuration())
    COMMANDS.write_text(update_option_tables(COMMANDS.read_text()))


def configuration() -> str:
    """Return the text of docs/configuration.md."""
    return TEXT.format(
        settings="\n".join(map(_setting_row, fields(Config))),
        presets="\n".join(f"| `{name}` | {PRESET_DESCRIPTIONS[name]} | {_changes(name)} |" for name in PRESETS),
        models="\n".join(_model_rows()),
        variables="\n".join(f"| `{name}` | {default} | {text} |" for name, (default, text) in VARIABLES.items()),
    )


def update_option_tables(page: str) -> str:
    """Return the text of docs/commands.md with its option tables replaced by the current ones."""
    return re.sub(
        r"(<!-- options of ([\w ]+) -->\n).*?(<!-- end of options -->)",
        lambda match: match[1] + option_table(match[2]) + match[3],
        page,
        flags=re.DOTALL,
    )


def option_table(command: str) -> str:
    """Return a Markdown table of a command's options, without settings and those of Ray and of layouts."""
    options = [option for option in all_commands()[command].params if isinstance(option, click.Option)]
    hidden = _hidden_options(option.name or "" for option in options)
    rows = [_option_row(option) for option in options if option.name not in hidden and option.expose_value]
    if not rows:
        return "This command has no options.\n"
    return "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def all_commands() -> dict[str, click.Command]:
    """Return the commands by name, those of a group by its name and their own: ``backbone inspect``."""
    commands = dict[str, click.Command]()
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            commands |= {f"{name} {own}": part for own, part in command.commands.items()}
        else:
            commands[name] = command
    return commands


def _hidden_options(names: Iterable[str]) -> set[str]:
    present = set(names)
    settings = {setting.name for setting in fields(Config)} | {"preset"}
    hidden = {name for name in present if name.startswith("ray_")} | (settings if settings <= present else set())
    return hidden | ({spec.name for spec in fields(LayoutOptions)} if "data_dir" in present else set())


def _option_row(option: click.Option) -> str:
    text, _, default = (option.help or "").partition(" [default: ")
    default = default.rstrip("]") or ("" if option.required else _format_default(option.default))
    name = max(option.opts, key=lambda text: "_" in text).lstrip("-")
    return f"| `{name}` | {_escape(default)} | {_escape(text).rstrip('.')} |"


def _format_default(value: Any) -> str:
    if value is None or repr(value).startswith("Sentinel"):  # click's marker for a missing default
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _setting_row(setting: Field[Any]) -> str:
    text = _escape(setting.metadata["help"].rstrip("."))
    default = setting.metadata["shown"] or setting.default
    return f"| `{setting.name}` | {default} | {_allowed(setting)} | {text} |"


def _allowed(setting: Field[Any]) -> str:
    limits = setting.metadata
    if limits["choices"]:
        return ", ".join(f"`{choice}`" for choice in limits["choices"])
    parts = ["whole," if setting.type == "int" else "text" if setting.type == "str" else ""]
    for key, word in (("least", "from"), ("above", "above"), ("most", "to"), ("below", "below")):
        if limits[key] is not None:
            parts.append(f"{word} {limits[key]:.12g}")
    return " ".join(filter(None, parts)).rstrip(",")


def _changes(preset: str) -> str:
    defaults = {setting.name: setting.default for setting in fields(Config)}
    shown = [
        f"`{name}={value}`"
        for name, value in PRESETS[preset].items()
        if (name == "model" and value != preset) or (name != "model" and value != defaults[name])
    ]
    return ", ".join(shown) or "none"


def _model_rows() -> Iterator[str]:
    for name, model in MODELS.items():
        config = Config.resolve({"model": name})
        if config.use_embedding:
            yield f"| `{name}` | {FEATURES[model.features]} | any, if the backbone has no window |"
            continue
        samples = config.min_samples
        unit = "sample" if samples == 1 else "samples"
        milliseconds = f"{1000 * samples / config.sampling_rate:.3g} ms at {config.sampling_rate} Hz"
        yield f"| `{name}` | {FEATURES[model.features]} | {samples} {unit}, {milliseconds} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
