"""Options that several commands share, most of them made from the fields of dataclasses (see `fsat.options`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import Field, fields, replace
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from fsat.config import Config
from fsat.errors import ConfigError
from fsat.files import data_folder, user_path
from fsat.layout_options import LayoutOptions
from fsat.model_names import check_model_name
from fsat.model_presets import BLENDS, PRESETS
from fsat.options import AUTO_OR_COUNT, PROMOTE, Cluster, Launch, option_name

if TYPE_CHECKING:
    from fsat.data.dataset import Source

Kind = TypeVar("Kind")

DEBUG = "FSAT_DEBUG"
"""Environment variable that turns on tracebacks."""

METAVARS = {"int": "INTEGER", "float": "NUMBER", "str": "WORD", "bool": "true|false"}

option = partial(click.option, show_default=True)


def options_of(kind: type, without: tuple[str, ...] = ()) -> Callable:
    """Return a decorator that adds an option for each field of a dataclass, except those named in `without`."""
    return _decorator(*_options(kind, without))


def _options(kind: type, without: tuple[str, ...] = ()) -> list[Callable]:
    return [_option(spec) for spec in fields(kind) if spec.metadata and spec.name not in without]


def read_options(kind: Callable[..., Kind], options: dict[str, Any], **others: Any) -> Kind:
    """Return a dataclass of those of its options that are given; raise `click.UsageError` for a wrong value."""
    given = {spec.name: options.get(option_name(spec)) for spec in fields(cast(Any, kind)) if spec.metadata}
    try:
        return kind(**{name: value for name, value in given.items() if value is not None}, **others)
    except ConfigError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None


def config_options(command: Callable) -> Callable:
    """Add an option for each setting, and `--preset`."""
    help = f"Set of defaults, by default that of the model: {', '.join(PRESETS)}."
    options = [_option(spec, ", or the preset's") for spec in fields(Config) if spec.name != "task"]
    return _decorator(click.option("--preset", metavar="WORD", help=help), *options)(command)


def _option(spec: Field[Any], or_else: str = "") -> Callable:
    """Return the option of a field; `or_else` follows its default in the help."""
    name, metadata = option_name(spec), spec.metadata
    metavar = metadata["metavar"] or "|".join(metadata["choices"]) or METAVARS[str(spec.type)]
    default = metadata["shown"] or (str(spec.default).lower() if spec.type == "bool" else spec.default)
    return click.option(f"--{name}", name, metavar=metavar, help=f"{metadata['help']} [default: {default}{or_else}]")


def _decorator(*options: Callable) -> Callable:
    """Return a decorator that adds options, in order."""
    return lambda command: reduce(lambda decorated, add: add(decorated), reversed(options), command)


def _check_count(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return AUTO_OR_COUNT["parse"](value)
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected {AUTO_OR_COUNT['expected']}") from None


def _check_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        check_model_name(value)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from None
    return value


cluster_options = options_of(Cluster)

BACKBONE = "Pretrained network: its descriptor, the folder that has backbone.json, or NAME@DIGEST."
HOP_HELP = "Maximum time between windows, in seconds. [default: the network's, else half a window]"
window_options = _decorator(
    click.option("--window_hop", type=float, metavar="SECONDS", help=HOP_HELP),
    click.option(
        "--audio_duration",
        type=float,
        metavar="SECONDS",
        help=f"Length of the windows of a network that takes any. [default: {Config.audio_duration:g}]",
    ),
)

source_options = _decorator(
    click.option("--data_dir", metavar="DIR", help="Data folder. [default: $FSAT_DATA_DIR, else generated sounds]"),
    option(
        "--on_bad_clip", type=click.Choice(["error", "exclude"]), default="error", help="Handling of unusable clips."
    ),
    *_options(LayoutOptions),
)

blend_options = _decorator(
    option(
        "--blend",
        type=click.Choice(BLENDS),
        default="geometric",
        help="Method that blends studies: their geometric or arithmetic mean with equal weights, or the geometric mean "
        "with weights fitted on out-of-fold predictions.",
    ),
    option(
        "--calibrate",
        type=click.Choice(["auto", "none"]),
        default="auto",
        help="Scale the tagger's scores so that they are probabilities, fitted on out-of-fold predictions; auto: where "
        "that lowers their log loss.",
    ),
    option("--register_as", default="fsat", callback=_check_name, help="Name of the registered model."),
    option(
        "--promote",
        type=click.Choice(PROMOTE),
        default="auto",
        help="When to move the alias champion to the new version; auto: if its out-of-fold mAP@3, or lwlrap with "
        "task=multi, is higher.",
    ),
)

run_options = _decorator(
    click.option("--run_ids", metavar="A,B,...", help="Fold runs, by run id."),
    click.option("--studies", metavar="A,B,...", help="Studies, by id. [default: the newest complete study]"),
)

CHAMPION, TAGGER = "models:/fsat@champion", "Tagger: an MLflow URI, NAME@ALIAS, or an alias or version of fsat."
model_option = option("--model", default=CHAMPION, metavar="URI|ALIAS", help=TAGGER)

N_PROCESSES = "Number of processes on this machine; auto is one for every four cores."
workers_option = option("--workers", default="auto", metavar="N|auto", callback=_check_count, help=N_PROCESSES)


def read_launch(options: dict[str, Any]) -> Launch:
    """Return how folds are started, and on which cluster."""
    return read_options(Launch, options, cluster=read_options(Cluster, options))


def read_config(options: dict[str, Any], **changes: Any) -> Config:
    """Return the settings of a preset and the options that override it, with `changes`.

    Rate and windows of a model on embeddings are by default those of its backbone.
    """
    given = {spec.name: options[spec.name] for spec in fields(Config) if spec.name != "task"} | changes
    if Config.resolve(given, options["preset"]).use_embedding:
        from fsat.commands.backbones import resolve_config

        return resolve_config(given, options["preset"])
    return Config.resolve(given | {"backbone": None}, options["preset"])


def read_source(options: dict[str, Any]) -> Source:
    """Return the dataset of the options; a missing folder is an error."""
    from fsat.data.dataset import Source
    from fsat.data.synth import data_dir_or_default

    folder = data_folder(data_dir_or_default(options["data_dir"]))
    layout = read_options(LayoutOptions, options)
    layout = replace(layout, table=_settled(layout.table, folder), annotations=_settled(layout.annotations, folder))
    return Source(folder, options["on_bad_clip"], options.get("n_folds") is not None, layout)


def _settled(name: str, folder: Path) -> str:
    """Return the path of a table or of annotations, absolute unless it is in the data folder or there is none.

    Runs record it, and other processes read it, whose current folder may be another one.
    """
    path = user_path(name)
    return str(path.absolute()) if name and not (folder / path).exists() and path.exists() else name


def read_words(name: str, text: str | None) -> list[str]:
    """Return the words of an option separated by commas; an option without a word is an error."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if text is not None and not words:
        raise click.UsageError(f"--{name} is empty; expected words separated by commas")
    return words


class Commands(click.Group):
    """Group that lists its commands in the order in which they were added, each with the option `--debug`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command."""
        cmd.params.append(debug_option())
        super().add_command(cmd, name)


def debug_option() -> click.Option:
    """Return the option `--debug`."""

    def set_variable(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ[DEBUG] = "1"

    help = f"Show a traceback on errors (or set {DEBUG}=1)."
    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=set_variable, help=help)
