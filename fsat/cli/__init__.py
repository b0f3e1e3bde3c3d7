"""The command line: options in, one line out for every error.

Options have the names of the Config fields, with underscores, because `mlflow run` hands ``-P name=value`` on as
``--name value``. Nothing heavy is imported before a command's options are known to be right.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from contextlib import suppress

import click

from fsat import interrupts
from fsat.cli.data_commands import (
    cli,  # the group, with all commands: each module adds its own to those of the one before
)
from fsat.cli.options import DEBUG
from fsat.errors import DataError, FsatError, listed

PROBLEMS_SHOWN = 50


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 an error, 2 wrong options, 128 + its number for a signal."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    if interrupts.received():  # TensorFlow's threads may still compute, and must not lose the interpreter under them
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command; the exit code."""
    interrupts.install()
    if "MLFLOW_RUN_ID" in os.environ:  # `mlflow run` started this process
        interrupts.follow_parent()
    code = _run(arguments)
    if interrupts.received() and "MLFLOW_RUN_ID" in os.environ:  # nobody has taken that run over yet
        # in a process of its own, because the signal may have left this one with a half-imported MLflow
        closing = "from fsat.tracking.runs import close_unopened; close_unopened()"
        subprocess.run([sys.executable, "-c", closing], start_new_session=True, check=False)
    return code


def _run(arguments: list[str]) -> int:
    try:
        cli.main(args=arguments, prog_name="python -m fsat", standalone_mode=False)
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        where = f"{error.ctx.command_path}: " if getattr(error, "ctx", None) else ""
        help_line = f"; see `{error.ctx.command_path} --help`" if getattr(error, "ctx", None) else ""
        return _fail(f"{where}{' '.join(error.format_message().split()).rstrip('.')}{help_line}", error.exit_code)
    except DataError as error:
        lines = listed(error.problems)
        for line in lines[:PROBLEMS_SHOWN]:
            print(f"  {line}", file=sys.stderr)
        if len(lines) > PROBLEMS_SHOWN:
            print(f"  ... and {len(lines) - PROBLEMS_SHOWN} more", file=sys.stderr)
        return _fail(str(error), 1)
    except FsatError as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        return _fail(f"{error} in {sys.executable}; install the dependencies with `make setup`, then `source "
                     ".venv/bin/activate`", 1)  # fmt: skip
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", 130)
    except Exception as error:  # the edge: anything else is a fault of fsat's, or of the machine
        what = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return _fail(f"{what}; set {DEBUG}=1 or add --debug to see where", 1)


def _fail(message: str, code: int) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    if signum := interrupts.received():  # whatever a library made of the interruption
        message, code = f"stopped by {signum.name}", 128 + signum
    print(f"fsat: error: {message}", file=sys.stderr)
    return code
