"""Exchanges with the tracking server: how a refusal reads, and how long a server that is away is waited for.

The first exchange of a process must succeed within half a minute, so that a wrong address is known at once. After that
a server that stops, restarts or is too busy is asked again for `patience` seconds; what it then has is there once,
because each request can be repeated: metrics carry their time, and what is created carries a mark to find it by.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from requests.exceptions import HTTPError, RequestException
from sqlalchemy.exc import SQLAlchemyError

from fsat import interrupts
from fsat.errors import ConfigError, RunError, printable
from fsat.progress import say

Arguments, Answer = ParamSpec("Arguments"), TypeVar("Answer")

UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How the server says that it knows no such thing."""

BUSY = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
"""How it says that it cannot answer just now."""

BUSY_STATUS = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses of that."""

AWAY = re.compile(
    r"failed with exception|Max retries exceeded|Connection (refused|aborted|reset)|RemoteDisconnected|timed out|"
    r"error code 50[0234]|too many 50[0234] error|50[0234] Server Error"
)
"""What MLflow's messages have where there was no answer."""

PAUSES = (1, 2, 4, 8)
"""Seconds from one attempt to the next; the last one repeats."""

FIRST = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""MLflow's settings for the first exchange, where the environment has none."""

LATER = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""And for those that follow."""

_met: set[str] = set()


class Refused(RunError):
    """The server has answered, and said no; `code` is MLflow's name for the reason."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ServerAway(RunError):
    """The server cannot be reached, or not any more."""


def patience() -> float:
    """Seconds that a server which was there is waited for: ``FSAT_SERVER_WAIT``, 600 if it is not set.

    Raises:
        ConfigError: the variable is not a number of at least 0.
    """
    given = os.environ.get("FSAT_SERVER_WAIT", "600")
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"FSAT_SERVER_WAIT={printable(given)}: expected a number of seconds of at least 0")
    return seconds


def ask(function: Callable[[], Answer], wait: float | None = None) -> Answer:
    """``function()``, an exchange with the server that may be repeated; a signal waits for its end.

    Args:
        function: may be called more than once.
        wait: seconds that a server which is away is waited for, by default `patience`.

    Raises:
        Refused: the server said no, or its store could not be written.
        ServerAway: it cannot be reached, or was away for longer than `patience`.
    """
    until, pauses = 0.0, list(PAUSES)
    while True:
        try:
            with interrupts.shielded(), _first_time():
                answer = function()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if not is_away(error):
                raise refusal(error) from error
            if not (_has_met() or _is_locked(error)) or interrupts.received():
                raise ServerAway(_unreachable(error)) from error
            now, seconds = time.monotonic(), patience() if wait is None else wait
            how = how_away(error)
            if not until:
                until = now + seconds
                if seconds:
                    say(f"the tracking server {address()} is {how}; it is asked again for {seconds:g} s")
            if now >= until:
                raise ServerAway(
                    f"the tracking server {address()} has been {how} for {seconds:g} s ({_in_a_line(error)}); "
                    "ask again when it answers, or wait longer with FSAT_SERVER_WAIT=SECONDS"
                ) from error
            _pause(pauses.pop(0) if len(pauses) > 1 else pauses[0])
        else:
            _met.add(mlflow.get_tracking_uri())
            if until:
                say(f"the tracking server {address()} has answered")
            return answer


def exchange(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """A decorator: calls go through `ask`."""

    @wraps(function)
    def asked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return ask(partial(function, *args, **kwargs))

    return asked


def is_away(error: BaseException) -> bool:
    """Whether there was no answer, or one that says to come again, rather than a refusal."""
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code in BUSY_STATUS
    if isinstance(error, RequestException | ConnectionError):
        return True
    if isinstance(error, MlflowException):
        return error.error_code in BUSY or bool(AWAY.search(str(error)))
    return _is_locked(error)


def how_away(error: BaseException) -> str:
    """What an error of `is_away` says of the server, to go on after "is": ``away``, or why it cannot answer."""
    if _is_locked(error):
        return "locked by another process"
    return "out of disk space" if re.search("No space left|disk is full", str(error)) else "away"


def _is_locked(error: BaseException) -> bool:
    """Whether another process just writes to an SQLite store."""
    return isinstance(error, SQLAlchemyError | MlflowException) and "database is locked" in str(error)


def refusal(error: BaseException) -> Refused:
    """A server's error in one line that says what to do."""
    code = getattr(error, "error_code", "")
    what = _in_a_line(error)
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or status == 401 or "error code 401" in what:
        return Refused(
            f"the tracking server {address()} does not know this user or password; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD",
            code,
        )
    if code == "PERMISSION_DENIED" or status == 403 or "error code 403" in what:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "this user")
        return Refused(
            f"the tracking server {address()} does not permit this to {printable(user)}; ask who runs it for EDIT on "
            "the experiment, and on the registered model",
            code,
        )
    if isinstance(error, SQLAlchemyError):
        return Refused(
            f"the database {address()} cannot be used: {what}; if the making of its tables was cut off, remove the "
            "file and begin anew",
            code,
        )
    if isinstance(error, OSError) and not isinstance(error, RequestException):
        return Refused(f"the artifacts of {address()} cannot be written or read: {what}; make room there", code)
    if "://" not in address():
        return Refused(
            f"the tracking server {address()} cannot be used; expected http://HOST:PORT or sqlite:///FILE in "
            "MLFLOW_TRACKING_URI",
            code,
        )
    return Refused(f"the tracking server {address()} refused: {what}; check MLFLOW_TRACKING_URI", code)


def address() -> str:
    """Where runs are kept, without a password."""
    return without_password(mlflow.get_tracking_uri())


def is_remote() -> bool:
    """Whether runs are kept by a server that other machines can reach, rather than in files of this one."""
    return mlflow.get_tracking_uri().startswith(("http:", "https:", "databricks", "postgresql", "mysql", "mssql"))


def absolute_uri() -> str:
    """Where runs are kept, for processes with another working folder; with the password, if it has one."""
    uri = mlflow.get_tracking_uri()
    scheme, slashes, path = uri.partition(":///")
    return f"{scheme}:///{Path(path).absolute()}" if slashes and scheme == "sqlite" else uri


def create_once(create: Callable[[str], Answer], find: Callable[[str], Answer | None]) -> Answer:
    """Create something on the server that carries a mark, also where the server's first answer is lost.

    Args:
        create: makes it, with the mark.
        find: gives what carries the mark, if there is such a thing.
    """
    mark, tried = uuid.uuid4().hex, []

    def once() -> Answer:
        if tried and (found := find(mark)) is not None:
            return found
        tried.append(mark)
        return create(mark)

    return ask(once)


@contextmanager
def _first_time() -> Iterator[None]:
    """Short waits, until a process has met the server; and for a new SQLite store, one process at a time."""
    if _has_met():
        for name, value in LATER.items():
            os.environ.setdefault(name, value)
        yield
        return
    given = {name for name in FIRST if os.environ.get(name, LATER[name]) != LATER[name]}  # not by a process before
    os.environ.update({name: value for name, value in FIRST.items() if name not in given})
    try:
        uri = mlflow.get_tracking_uri()
        if uri.startswith("sqlite:"):
            name = hashlib.sha256(os.path.abspath(uri.partition("///")[2]).encode()).hexdigest()[:16]
            with FileLock(Path(tempfile.gettempdir()) / f"fsat-{getattr(os, 'getuid', int)()}-{name}.lock"):
                _make_tables(uri)
        mlflow.MlflowClient().search_experiments(max_results=1)
        yield
    finally:
        for name in set(FIRST) - given:
            os.environ.pop(name, None)


def _make_tables(uri: str) -> None:
    """Make a new SQLite store, whole or not at all: MLflow cannot use one whose making was cut off by a SIGKILL."""
    scheme, _, rest = uri.partition(":///")
    path = rest.partition("?")[0]
    if not path or path.startswith((":", "file:")) or (os.path.isfile(path) and os.path.getsize(path)):
        return
    unfinished = path + ".unfinished"
    for left in (unfinished, unfinished + "-journal"):
        Path(left).unlink(missing_ok=True)
    mlflow.MlflowClient(f"{scheme}:///{unfinished}{rest[len(path) :]}").search_experiments(max_results=1)
    os.replace(unfinished, path)


def _has_met() -> bool:
    return mlflow.get_tracking_uri() in _met


def _unreachable(error: BaseException) -> str:
    return (
        f"the tracking server {address()} cannot be reached ({_in_a_line(error)}); start it, or check "
        "MLFLOW_TRACKING_URI"
    )


def _in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    known = re.search("Connection refused|Name or service not known|[Tt]imed out|No space left|disk is full", text)
    return known[0].lower() if known else without_password(text)[:300].replace(";", ",")


def without_password(text: str) -> str:
    """The text, with *** for the passwords of addresses in it."""
    return re.sub(r"//([^/@:\s]*):[^/@\s]+@", r"//\1:***@", text)


def _pause(seconds: float) -> None:
    """Sleep, unless a signal has come; one that may not raise now must still end the waiting."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not interrupts.received():
        time.sleep(0.1)
