"""Calls to the MLflow tracking server: retried while it is unreachable, with refusals in one line.

The first call of a process must succeed within half a minute, so that a wrong address is reported at once. Later calls
are retried for `patience` seconds. Every call can be repeated safely: metrics carry their time, and whatever is created
carries a mark by which it is found again.

MLflow's internals that have no public equivalent are used in this module only; `fsat.tracking.mlflow_ui` knows the
format of its shared views.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from requests.exceptions import HTTPError, RequestException
from sqlalchemy.exc import SQLAlchemyError

from fsat import interrupts
from fsat.errors import ConfigError, RunError, printable
from fsat.files import is_full, locked
from fsat.progress import say
from fsat.tracking import remedies
from fsat.tracking.first_call import create_sqlite_store, fault_of_file, fault_of_server

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs what it raises
logging.getLogger("alembic").setLevel(logging.WARNING)

Result = TypeVar("Result")

TAG = "fsat."
"""Prefix of the tags that fsat sets: stage, study, fold, model, dataset, ..."""

UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for an id that does not exist."""

BUSY, BUSY_STATUS = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"), (408, 425, 429, 500, 502, 503, 504)
"""MLflow's error codes and the HTTP status codes of a request that is worth repeating."""

NO_ANSWER = re.compile(
    r"failed with exception|Max retries exceeded|Connection (refused|aborted|reset)|RemoteDisconnected|timed out|"
    r"error code 50[0234]|too many 50[0234] error|50[0234] Server Error"
)
"""Matches MLflow's messages about a server that did not answer."""

PAUSES = (1, 2, 4, 8)
"""Seconds between attempts; the last one repeats."""

FIRST_CALL = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
LATER_CALLS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""MLflow's settings for the first call and for those that follow, where the environment sets none."""


@dataclass
class Session:
    """State of this process: the servers that it has reached and the runs that it has open."""

    reached: set[str] = field(default_factory=set)  # tracking URIs that have answered
    denied: set[str] = field(default_factory=set)  # actions that the server does not permit and a warning has named
    checked: set[str] = field(default_factory=set)  # experiments whose artifacts can be written
    adopted: set[str] = field(default_factory=set)  # runs that `mlflow run` created for this process
    redundant: set[str] = field(default_factory=set)  # runs to delete when they are closed, as another has their place
    on_finish: dict[str, list[Callable[[], None]]] = field(default_factory=dict)  # by run id, called when FINISHED
    beating: set[str] = field(default_factory=set)  # runs whose heartbeat `beat_thread` renews
    lost: set[str] = field(default_factory=set)  # runs that another process has taken over
    beat_thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards `beating` and `beat_thread`


SESSION = Session()


class Refused(RunError):
    """The server answered with an error; `is_unknown`: it does not have what an id names."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.is_unknown = code in UNKNOWN


class ServerUnreachable(RunError):
    """The server does not answer."""


def seconds_from_environment(name: str, default: float, positive: bool = False) -> float:
    """Return the seconds that an environment variable sets; raise `ConfigError` unless finite and in range."""
    value = os.environ.get(name, str(default))
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf") or (positive and not seconds):
        expected = "above 0" if positive else "of at least 0"
        raise ConfigError(f"{name}={printable(value)}: expected a number of seconds {expected}")
    return seconds


def patience() -> float:
    """Return for how many seconds a call is retried: ``FSAT_SERVER_WAIT``, by default 600."""
    return seconds_from_environment("FSAT_SERVER_WAIT", 600)


def call(function: Callable[[], Result], wait: float | None = None) -> Result:
    """Call the server, and retry while it is unreachable. A signal is raised after the call in progress.

    Args:
        function: makes the call; must be safe to repeat.
        wait: seconds to retry for, by default `patience`.

    Raises:
        Refused: the server answered with an error, or its store cannot be written.
        ServerUnreachable: the first call of this process failed, or the retries did.
    """
    deadline, pauses = 0.0, chain(PAUSES, repeat(PAUSES[-1]))
    while True:
        try:
            with interrupts.shielded(), _settings_of_call():
                result = function()
            break
        except ModuleNotFoundError as error:
            if message := remedies.missing_package(str(error.name), address()):
                raise Refused(message) from error
            raise
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if not (state := outage(error)):
                raise refusal(error) from error
            server, (why, advice) = f"the tracking server {address()}", remedies.unreachable(_text(error), address())
            reason = why or _reason(error)
            if not (_is_reached() or _is_locked(error)) or interrupts.received():
                message = f"{server} cannot be reached ({reason}); {advice}"
                raise ServerUnreachable(message) from error
            now, seconds = time.monotonic(), patience() if wait is None else wait
            if not deadline and seconds:
                say(f"{server} is {state}; retrying for up to {seconds:g} s")
            deadline = deadline or now + seconds
            if now >= deadline:
                later = "try again when it answers, or wait longer with FSAT_SERVER_WAIT=SECONDS"
                advice = f"{advice}, and {later}" if why else later
                message = f"{server} has been {state} for {seconds:g} s ({reason}); {advice}"
                raise ServerUnreachable(message) from error
            _pause(next(pauses))
    SESSION.reached.add(mlflow.get_tracking_uri())
    if deadline:
        say(f"the tracking server {address()} answers again")
    return result


def search_runs(
    query: str, experiment: str | None = None, order_by: Sequence[str] = (), max_results: int = 100_000
) -> list[Run]:
    """Return the runs that match an MLflow filter string, by default the newest first.

    They are of the experiment with this id, by default of that in which a run is open or would be opened.
    """
    if experiment is None and (active := mlflow.active_run()):
        experiment = active.info.experiment_id
    ids, order = [experiment] if experiment else None, list(order_by) or None
    search = partial(mlflow.search_runs, ids, query, max_results=max_results, order_by=order, output_format="list")
    return call(search)


def discard(run_id: str) -> None:
    """Delete a run whose work another run does, if the server permits it."""
    with suppress(Refused):
        call(lambda: mlflow.MlflowClient().delete_run(run_id))


def delete_folder(run: Run, folder: str) -> None:
    """Delete an artifact folder of a run, if its artifact store can. MLflow's client has no such call."""
    with suppress(NotImplementedError, MlflowException, OSError):
        get_artifact_repository(run.info.artifact_uri).delete_artifacts(folder)


def outage(error: BaseException) -> str:
    """Return the server's state in words if the call may succeed later; an empty text if the error is an answer."""
    if remedies.READ_ONLY.search(str(error)):
        temporary = False
    elif isinstance(error, HTTPError) and error.response is not None:
        temporary = error.response.status_code in BUSY_STATUS
    elif isinstance(error, MlflowException):
        temporary = error.error_code in BUSY or bool(NO_ANSWER.search(str(error)))
    else:
        temporary = isinstance(error, RequestException | ConnectionError) or _is_locked(error)
    if not temporary or _is_locked(error):
        return "locked by another process" if temporary else ""
    return "out of disk space" if re.search("No space left|disk is full", str(error)) else "unreachable"


def refusal(error: BaseException) -> Refused:
    """Return a server's error as one line that says what to do."""
    code, reason, server = getattr(error, "error_code", ""), _reason(error), f"the tracking server {address()}"
    text = _text(error)
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or status == 401 or "error code 401" in reason:
        variables = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        message = f"{server} does not know this user or password; set {variables}"
    elif found := remedies.DELETED_RUN.search(text):
        message = _deleted_run(found[1])
    elif message := remedies.remedy(text, address(), _is_reached()):
        pass
    elif code == "PERMISSION_DENIED" or status == 403 or "error code 403" in reason:
        user = printable(os.environ.get("MLFLOW_TRACKING_USERNAME", "this user"))
        advice = "ask its administrator for EDIT on the experiment, and on the registered model"
        message = f"{server} does not permit this to {user}; {advice}"
    elif isinstance(error, SQLAlchemyError):
        message = f"the database {address()} cannot be used: {reason}; if it is empty or incomplete, remove the file"
    elif isinstance(error, OSError) and not isinstance(error, RequestException):
        message = _disk_refusal(error)
    elif "://" not in address() or "unsupported URI" in text:
        message = f"{server} cannot be used; expected http://HOST:PORT or sqlite:///FILE in MLFLOW_TRACKING_URI"
    else:
        message = f"{server} refused: {reason}; check MLFLOW_TRACKING_URI"
    return Refused(message, code)


def _deleted_run(run_id: str) -> str:
    """Return the line for a run that is deleted, alone or with its experiment."""
    with suppress(MlflowException, SQLAlchemyError, OSError):
        client = mlflow.MlflowClient()
        experiment = client.get_experiment(client.get_run(run_id).info.experiment_id)
        if experiment.lifecycle_stage == "deleted":
            return remedies.deleted_experiment(experiment.experiment_id)
    return f"the run {run_id} is deleted; restore it with `mlflow runs restore --run-id {run_id}`"


def _disk_refusal(error: OSError) -> str:
    """Return the line for a local file, of the database or an artifact, that cannot be written or read."""
    reason, path = error.strerror or _reason(error), Path(str(error.filename or "?"))
    if isinstance(error, IsADirectoryError) and address().startswith("sqlite:"):
        return f"MLFLOW_TRACKING_URI={address()} is a folder; expected sqlite:///FILE"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return remedies.unwritable_folder(path.parent, reason.lower())
    advice = "make room there" if is_full(error) else "check the disk"
    return f"the artifacts of {address()} cannot be written or read: {without_password(str(error))}; {advice}"


def address() -> str:
    """Return the tracking URI without its password."""
    return without_password(mlflow.get_tracking_uri())


def is_remote() -> bool:
    """Return whether runs are stored on a server that other machines can reach, not in local files."""
    return mlflow.get_tracking_uri().startswith(("http:", "https:", "databricks", "postgresql", "mysql", "mssql"))


def absolute_uri() -> str:
    """Return the tracking URI, with its password, for processes with another working folder."""
    uri = mlflow.get_tracking_uri()
    scheme, slashes, path = uri.partition(":///")
    return f"{scheme}:///{Path(path).absolute()}" if slashes and scheme == "sqlite" else uri


def without_password(text: str) -> str:
    """Return the text with *** for the passwords of its addresses."""
    return re.sub(r"//([^/@:\s]*):[^/@\s]+@", r"//\1:***@", text)


@contextmanager
def _settings_of_call() -> Iterator[None]:
    """Set MLflow's timeouts; at the first call, check the address and create a new SQLite store."""
    if _is_reached():
        for name, value in LATER_CALLS.items():
            os.environ.setdefault(name, value)
        yield
        return
    # a parent process may have left its own LATER_CALLS in the environment
    names = [name for name in FIRST_CALL if os.environ.get(name, LATER_CALLS[name]) == LATER_CALLS[name]]
    os.environ.update({name: FIRST_CALL[name] for name in names})
    try:
        uri = mlflow.get_tracking_uri()
        if uri.startswith("sqlite:"):
            if fault := fault_of_file(uri, address()):
                raise Refused(fault)
            digest = hashlib.sha256(os.path.abspath(uri.partition("///")[2]).encode()).hexdigest()[:16]
            lock = Path(tempfile.gettempdir()) / f"fsat-{getattr(os, 'getuid', int)()}-{digest}"
            with locked(lock, "creating the tracking store"):
                create_sqlite_store(uri)
        found = mlflow.MlflowClient().search_experiments(max_results=1)
        if uri.startswith("http") and (fault := fault_of_server(uri, address(), bool(found))):
            raise Refused(fault)
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


def _is_reached() -> bool:
    return mlflow.get_tracking_uri() in SESSION.reached


def _is_locked(error: BaseException) -> bool:
    """Return whether another process is writing to an SQLite store."""
    return isinstance(error, SQLAlchemyError | MlflowException) and "database is locked" in str(error)


def _text(error: BaseException) -> str:
    return without_password(" ".join(str(error).split()))


def _reason(error: BaseException) -> str:
    text = _text(error)
    known = re.search("Connection refused|Name or service not known|[Tt]imed out|No space left|disk is full", text)
    return known[0].lower() if known else text[:300].replace(";", ",")


def _pause(seconds: float) -> None:
    """Sleep until a signal comes, even one that may not raise here."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not interrupts.received():
        time.sleep(0.1)
