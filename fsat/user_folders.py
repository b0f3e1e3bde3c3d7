"""Folders of the user: home, caches and temporary files, on machines where some of them are missing.

A container may run as a user without a home, or without an entry in the user database, where MLflow, numba and others
fail with errors that do not name the cause. `settle_folders` sets the environment variables that they read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fsat.errors import FsatError, printable
from fsat.progress import say


def settle_folders() -> None:
    """Use a folder for temporary files in place of a missing home, or of caches that cannot be written, and say so.

    Processes that this one starts find the folders in their environment. Raises `FsatError` if no folder for temporary
    files can be written, or if another user has made the one that is to be used.
    """
    if os.name != "posix":
        return
    import tempfile

    try:
        tempfile.gettempdir()
    except OSError as error:
        fault = f"no folder for temporary files can be written ({error.strerror or error})"
        raise FsatError(f"TMPDIR={printable(os.environ.get('TMPDIR', ''))}: {fault}; set TMPDIR to one") from error
    _settle_user()
    if fault := _home_fault():
        os.environ["HOME"] = str(_substitute())
        _say(fault, "settings and caches", "HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not can_be_written(cache):
        os.environ["XDG_CACHE_HOME"] = str(_substitute() / ".cache")
        _say(f"{cache} cannot be written", "caches", "XDG_CACHE_HOME")
    if not can_be_written(Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")):
        os.environ.setdefault("MPLCONFIGDIR", str(_substitute() / "matplotlib"))  # which Matplotlib asks for


def _settle_user() -> None:
    """Name the user by number where the user database does not know it, as MLflow asks for a name."""
    import getpass

    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _home_fault() -> str:
    """Return why there is no home folder, or an empty text if there is one."""
    try:
        home = Path.home()
    except RuntimeError:
        return f"HOME is not set, and the user database has no entry of user {os.getuid()}"
    return "" if os.path.isdir(home) else f"HOME={printable(home)} is not a folder"


def can_be_written(folder: Path) -> bool:
    """Return whether files can be written to a folder, which may have to be made first."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _substitute() -> Path:
    """Return the user's folder among the temporary files, which is made; raise `FsatError` if it is another user's."""
    import tempfile

    folder = Path(tempfile.gettempdir(), f"fsat-home-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise FsatError(f"{folder}: cannot be made: {error.strerror}; set HOME to a folder that you can use") from error
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise FsatError(f"{folder}: belongs to another user; set HOME to a folder that you can use")
    return folder


def _say(fault: str, content: str, name: str) -> None:
    say(f"warning: {fault}: using {os.environ[name]} for {content}; set {name} to a folder that you can write to")
