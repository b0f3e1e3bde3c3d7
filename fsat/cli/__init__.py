"""The command line: options in, one line out for every error.

Options have the names of the settings, with underscores, because `mlflow run` passes ``-P name=value`` on as
``--name value``; ``--top-k`` is the same as ``--top_k``. Nothing heavy is imported before the options are checked.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from contextlib import suppress

import click

from fsat import __version__, interrupts
from fsat.cli.backbone_commands import backbone
from fsat.cli.data_commands import cache, download, manifest, sample, score, sync
from fsat.cli.embedding_commands import embed, similar
from fsat.cli.evaluation_commands import evaluate
from fsat.cli.shared_options import DEBUG, Commands, debug_option
from fsat.cli.tag_commands import app, export, predict, segments
from fsat.cli.train_commands import cross_validate, eda, ensemble, main_command, train_fold, verify
from fsat.errors import DataError, FsatError, listed, printable
from fsat.user_folders import settle_folders

PROBLEMS_SHOWN = 50

SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "token_normalize_func": lambda word: word.replace("-", "_"),
}


@click.group(cls=Commands, context_settings=SETTINGS, params=[debug_option()])
@click.version_option(__version__, prog_name="fsat")
def cli() -> None:
    """Tag sounds: from a folder of labelled clips to a registered tagger, every step tracked by MLflow."""
    settle_folders()


STEPS = (main_command, eda, train_fold, cross_validate, ensemble, verify)
USE = (predict, evaluate, segments, export, embed, similar, app)
for command in (*STEPS, *USE, sync, manifest, score, sample, download, backbone, cache):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with 0, 1 for an error, 2 for wrong options, or 128 + the number of a signal."""
    for stream in (sys.stdout, sys.stderr):  # a label or a name that a terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:] if arguments is None else arguments)
    if interrupts.received():  # TensorFlow's threads may still compute, which a normal exit would crash
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command and return the exit code."""
    interrupts.install()
    if "MLFLOW_RUN_ID" in os.environ:  # `mlflow run` started this process
        interrupts.follow_parent()
    code = _run(arguments)
    if interrupts.received() and "MLFLOW_RUN_ID" in os.environ:  # the run may not be open yet
        import subprocess

        # in another process, because the signal may have interrupted the import of MLflow here
        closing = "from fsat.tracking.runs import close_unopened; close_unopened()"
        subprocess.run([sys.executable, "-c", closing], start_new_session=True, check=False)
    return code


def _is_folder(word: str) -> bool:
    """Return whether a word is the path of a folder, or looks like one, rather than a command or an option."""
    if word in cli.commands or word.startswith("-"):
        return False
    return os.path.isdir(os.path.expanduser(word)) or os.sep in word


def _run(arguments: list[str]) -> int:
    if arguments and _is_folder(arguments[0]):
        arguments = ["main", "--data_dir", *arguments]
    try:
        cli.main(args=arguments, prog_name="python -m fsat", standalone_mode=False)
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        message = " ".join(error.format_message().split()).rstrip(".")
        if context := getattr(error, "ctx", None):
            message = f"{context.command_path}: {message}; see `{context.command_path} --help`"
        return _fail(message, error.exit_code)
    except FsatError as error:
        lines = listed(error.problems) if isinstance(error, DataError) else []
        rest = [f"... and {len(lines) - PROBLEMS_SHOWN} more"] if len(lines) > PROBLEMS_SHOWN else []
        for line in [*lines[:PROBLEMS_SHOWN], *rest]:
            print(f"  {line}", file=sys.stderr)
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        advice = "install the dependencies with `make setup`, then `source .venv/bin/activate`"
        return _fail(f"{error} in {sys.executable}; {advice}", 1)
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", 130)
    except Exception as error:  # a fault of fsat or of the machine
        message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        if isinstance(error, OSError) and error.filename and error.strerror:
            message = f"{printable(error.filename)[:200]}: {error.strerror}"
        return _fail(f"{message}; set {DEBUG}=1 or add --debug for a traceback", 1)


def _fail(message: str, code: int) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    if signum := interrupts.received():  # a library may have replaced the exception
        message, code = f"stopped by {signum.name}", 128 + signum
    print(f"fsat: error: {message}", file=sys.stderr)
    return code
