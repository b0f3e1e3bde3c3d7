"""Makes docs/configuration.md, and the tables of options in docs/entry-points.md, from what the code says.

``python -m docs.make_reference`` writes both; a test fails where they are not as this would write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from fsat.cli import cli
from fsat.config import PRESETS, Config

PAGES = Path(__file__).parent
CONFIGURATION, ENTRY_POINTS = PAGES / "configuration.md", PAGES / "entry-points.md"

PRESET_WORDS = {
    "dummy1d": "the notebook's baseline, which sees only the greatest sample",
    "conv1d": "the notebook's 1D convolution on the waveform",
    "conv2d_mfcc": "the notebook's 2D convolution on MFCC",
    "cnn_logmel": "fsat's own: a compact convolutional network on log-mel spectrograms",
    "conv1d_fsat": "the notebook's 1D network with fsat's recipe",
    "conv2d_mfcc_fsat": "the notebook's 2D network with fsat's recipe",
    "quick": "the notebook's small configuration, to see whether everything runs",
}

VARIABLES = {
    "FSAT_DATA_DIR": ("generated sounds", "the data folder where `data_dir` is not given"),
    "FSAT_CACHE_DIR": ("the platform's", "the cache folder: decoded clips, checkpoints, generated sounds"),
    "FSAT_THREADS": ("4", "threads that one operation is split over; another number has other last digits"),
    "FSAT_SERVER_WAIT": ("600", "seconds for which a tracking server that is away is waited for"),
    "FSAT_HEARTBEAT": ("20", "seconds between two beats of a run; the same for all who share a server"),
    "FSAT_SERVE_MAX_MB": ("64", "[serving](serving.md): largest request, in MB"),
    "FSAT_SERVE_MAX_SECONDS": ("600", "serving: longest clip, in seconds"),
    "FSAT_SERVE_MAX_CLIPS": ("64", "serving: clips in a request"),
    "FSAT_DEBUG": ("", "1 adds the traceback to an error, as `--debug` does"),
}
"""Environment variables: default and meaning."""

TEXT = """\
# Configuration

<!-- Made by `python -m docs.make_reference` from fsat.config.Config: edit that, or the text in that script. -->

`mlflow run` takes conda for granted: without it, activate `.venv` and add `--env-manager local` to such commands, or
write `python -m fsat eda --data_dir DIR` for `mlflow run . -e eda -P data_dir=DIR`, and so on.

`Config` (`fsat/config.py`) is the only place for numbers that training, features and inference share. Every setting is

- an option: `-P learning_rate=0.0005` with `mlflow run`, `--learning_rate 0.0005` with `python -m fsat`;
- a parameter of each fold run, and in its `config.json`, from which it comes back unchanged;
- checked before anything starts: what is wrong is said with the setting, the value and what is allowed;
- part of the study's id, if it changes predictions: folds of one study were trained alike. (The id is a hash of these
  settings, the dataset, the order of labels, and a number that rises when fsat's results change.)

```
mlflow run . -e train_fold -P fold=0 -P model=conv1d -P learning_rate=0.0005
python -m fsat train_fold --fold 0 --model conv1d --learning_rate 0.0005
```

Choosing a model chooses its preset's values unless an option says otherwise; `-P preset=NAME` chooses a preset, and its
model with it.

## Settings

| setting | default | allowed | meaning |
| --- | --- | --- | --- |
{settings}

Settings of augmentation on spectrograms (`gain`, `stretch`, `mel_shift`, `time_mask`, `mel_mask`) and `eval_duration`
are for models on log-mel spectrograms alone; others refuse them.

## Presets

| preset | is | departs from the defaults by |
| --- | --- | --- |
{presets}

## Models

| model | takes | shortest crop |
| --- | --- | --- |
{models}

What else is allowed depends on the model: its shortest crop is `sampling_rate` times `audio_duration`.

## Environment variables

| variable | default | meaning |
| --- | --- | --- |
{variables}

MLflow's own hold too: `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`, `MLFLOW_TRACKING_USERNAME` and so on.
"""


def configuration() -> str:
    """The page on configuration."""
    return TEXT.format(
        settings=_lines(map(_setting, fields(Config))),
        presets=_lines(f"| `{name}` | {PRESET_WORDS[name]} | {_departures(name)} |" for name in PRESETS),
        models=_lines(_models()),
        variables=_lines(f"| `{name}` | {default} | {what} |" for name, (default, what) in VARIABLES.items()),
    )


def entry_points(page: str) -> str:
    """The page on entry points, with its tables of options as they are now."""
    return re.sub(
        r"(<!-- options of (\w+) -->\n).*?(<!-- end of options -->)",
        lambda found: found[1] + options(found[2]) + found[3],
        page,
        flags=re.DOTALL,
    )


def options(name: str) -> str:
    """A command's options as a table, without the settings, which have a page of their own, and Ray's, as they have."""
    params = [option for option in cli.commands[name].params if isinstance(option, click.Option)]
    settings = {spec.name for spec in fields(Config)} | {"preset"}
    elsewhere = settings if settings <= {option.name for option in params} else set()
    rows = []
    for option in params:
        if option.name in elsewhere or option.name.startswith("ray_") or not option.expose_value:
            continue
        words, _, default = (option.help or "").partition(" [default: ")
        default = default.rstrip("]") or ("" if option.required else _shown(option.default))
        shown = max(option.opts, key=lambda text: "_" in text).lstrip("-")
        rows.append(f"| `{shown}` | {_escaped(default)} | {_escaped(words).rstrip('.')} |")
    if not rows:
        return "It takes no options of its own.\n"
    return "| option | default | meaning |\n| --- | --- | --- |\n" + _lines(rows) + "\n"


def _setting(spec: Field) -> str:
    words = spec.metadata["help"].rstrip(".")
    return f"| `{spec.name}` | {spec.default} | {_allowed(spec)} | {_escaped(words)} |"


def _allowed(spec: Field) -> str:
    limits = spec.metadata
    if limits["choices"]:
        return ", ".join(f"`{word}`" for word in limits["choices"])
    low = next((f"{word} {limits[name]:g}" for name, word in (("least", "from"), ("above", "above"))
                if limits[name] is not None), "")  # fmt: skip
    high = next((f"{word} {limits[name]:.12g}" for name, word in (("most", "to"), ("below", "below"))
                 if limits[name] is not None), "")  # fmt: skip
    return " ".join(filter(None, ({"int": "whole,", "float": "", "str": "text"}[spec.type], low, high))).rstrip(",")


def _departures(name: str) -> str:
    usual = {spec.name: spec.default for spec in fields(Config)}
    values = {key: value for key, value in PRESETS[name].items() if key == "model" or value != usual[key]}
    return (
        ", ".join(f"`{key}={value}`" for key, value in values.items() if (key, value) != ("model", name)) or "nothing"
    )


def _models() -> Iterator[str]:
    from fsat.config import MODELS

    kinds = {"waveform": "the waveform", "mfcc": "MFCC", "logmel": "log-mel spectrograms"}
    for name, info in MODELS.items():
        config = Config.resolve({"model": name})
        least = config.min_samples
        words = f"{least} sample{'s' if least > 1 else ''}, {1000 * least / config.sampling_rate:.3g} ms"
        yield f"| `{name}` | {kinds[info.features]} | {words} at {config.sampling_rate} Hz |"


def _shown(value: Any) -> str:
    if value is None or repr(value).startswith("Sentinel"):  # click's word for "not given"
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _lines(rows: Any) -> str:
    return "\n".join(rows)


def main() -> None:
    """Write both pages."""
    CONFIGURATION.write_text(configuration())
    ENTRY_POINTS.write_text(entry_points(ENTRY_POINTS.read_text()))


if __name__ == "__main__":
    main()
