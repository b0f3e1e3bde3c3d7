"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from fsat.config import PRESETS, Config
from fsat.options import Thresholds
from fsat.presets import BLENDS

DEBUG = "FSAT_DEBUG"
"""Environment variable that asks for tracebacks."""


def _debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ[DEBUG] = "1"


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_debug, help=f"Show a traceback on errors (or set {DEBUG}=1)."
)


def config_options(command: Callable) -> Callable:
    """Add an option for every Config field, and `--preset`."""
    for spec in reversed(fields(Config)):
        known = f" One of: {', '.join(spec.metadata['choices'])}." if spec.metadata["choices"] else ""
        default = f" [default: {spec.default}, or the preset's]"
        kind = {"int": "INTEGER", "float": "NUMBER", "str": "WORD"}[spec.type]
        command = click.option(f"--{spec.name}", spec.name, metavar=kind, help=spec.metadata["help"] + known + default)(
            command
        )
    presets = ", ".join(PRESETS)
    return click.option("--preset", metavar="WORD", help=f"Set of defaults, the model's own if not given: {presets}.")(
        command
    )


def source_options(command: Callable) -> Callable:
    """Add the options of commands that read a dataset."""
    command = click.option(
        "--on_bad_clip",
        type=click.Choice(["error", "exclude"]),
        default="error",
        show_default=True,
        help="What to do about training clips that cannot be used.",
    )(command)
    return click.option(
        "--data_dir", metavar="DIR", help="Data folder. [default: $FSAT_DATA_DIR, else generated sounds]"
    )(command)


def check_count(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what is neither ``auto`` nor a whole number of at least 1."""
    if value == "auto" or (value.isascii() and value.isdecimal() and int(value) > 0):
        return value
    raise click.BadParameter(f"{value!r}: expected auto or a whole number of at least 1")


parallel_option = click.option(
    "--parallel_folds",
    default="auto",
    show_default=True,
    metavar="N|auto",
    callback=check_count,
    help="Folds to train at the same time, each in a process of its own.",
)

launch_options = [
    click.option(
        "--resume",
        type=bool,
        default=True,
        show_default=True,
        help="Go on with a fold that was stopped, after its last finished epoch, and leave a FINISHED one as it is.",
    ),
    click.option(
        "--checkpoint_to",
        type=click.Choice(["local", "server"]),
        default="local",
        show_default=True,
        help="Where checkpoints are kept: on this machine, or on the tracking server too, so that another can go on.",
    ),
]

cluster_options = [
    click.option(
        "--cluster",
        type=click.Choice(["none", "ray"]),
        default="none",
        show_default=True,
        help="Spread the work over a cluster; ray needs fsat[ray].",
    ),
    click.option(
        "--ray_address",
        default="auto",
        show_default=True,
        metavar="auto|HOST:PORT",
        help="The Ray cluster; auto is the one that this machine belongs to, or else one started here for the command.",
    ),
    click.option(
        "--ray_cpus", default="auto", show_default=True, metavar="N|auto", help="Processors that each task needs."
    ),
    click.option(
        "--ray_gpus",
        default="auto",
        show_default=True,
        metavar="N|auto",
        help="GPUs that each task needs; auto is one where the cluster has any.",
    ),
]

tag_options = [
    click.option(
        "--top_k",
        "--top-k",
        type=click.IntRange(min=1),
        default=None,
        help="Tags of a clip, or of a window, at most. [default: 3 of a clip, 1 of a window]",
    ),
    click.option(
        "--min_score",
        "--min-score",
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        help="Least score of a tag.",
    ),
    click.option(
        "--members",
        default="all",
        show_default=True,
        metavar="all|N|STUDY/FOLD,...",
        help="Members of the ensemble to tag with; fewer are quicker.",
    ),
    click.option(
        "--window",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Give tags over time: of windows of this length. [default: 0, one set of tags for each file]",
    ),
    click.option(
        "--hop",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Seconds from one window to the next. [default: as long as a window]",
    ),
    click.option(
        "--max_seconds",
        "--max-seconds",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Longest file that is tagged; a longer one's row has an error. [default: 600, any length with --window]",
    ),
]

blend_options = [
    click.option(
        "--blend",
        type=click.Choice(BLENDS),
        default="geometric",
        show_default=True,
        help="How studies are blended: by their geometric or arithmetic mean, each alike, or weighted: by a geometric "
        "mean with weights fitted on out-of-fold predictions.",
    ),
    click.option("--register_as", default="fsat", show_default=True, help="Name of the registered model."),
    click.option(
        "--promote",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Whether the alias champion moves to the new version; auto: if its OOF mAP@3 is better.",
    ),
]


threshold_options = [
    click.option(f"--{field.name}_at", type=click.FloatRange(0, 1), default=field.default, show_default=True, help=help)
    for field, help in zip(
        fields(Thresholds),
        (
            "Least probability of a label that is the best guess, to accept it.",
            "Least probability of another best guess, to make it the label.",
            "Probability of a label below which its clip is dropped.",
        ),
        strict=True,
    )
]


def cluster_of(options: dict[str, Any]) -> Any:
    """The machines to work on; takes what says so out of the options."""
    from fsat.options import Cluster

    names = {"cluster": "kind", "ray_address": "address", "ray_cpus": "cpus", "ray_gpus": "gpus"}
    return Cluster(**{field: options.pop(name) for name, field in names.items() if name in options})


def with_options(options: list[Callable]) -> Callable:
    """A decorator that adds several options."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class Commands(click.Group):
    """Lists commands in the order of work, and gives each `--debug`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of work."""
        return list(self.commands)

    def command(self, *args: Any, **kwargs: Any) -> Callable:
        """As `click.Group.command`, with `--debug` added."""
        add = super().command(*args, **kwargs)
        return lambda function: add(debug_option(function))
