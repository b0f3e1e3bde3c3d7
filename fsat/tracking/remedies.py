"""What MLflow, its store or the network reports, and the remedy: one line for each kind of trouble.

The functions take the text of an error and the tracking URI, both without passwords. MLflow has no error codes for most
of these, so they are recognised by their words, in MLflow 3.10 and later; tests provoke each on a real server or store.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import mlflow

NAMES = "choose another one with MLFLOW_EXPERIMENT_NAME, or with `mlflow run --experiment-name`"

DELETED_RUN = re.compile(r"The run (\w+) must be in the 'active' state")
"""Matches MLflow's refusal to write to a run that is deleted, alone or with its experiment."""

PACKAGES = {
    **{"psycopg": "psycopg2-binary", "psycopg2": "psycopg2-binary", "pymysql": "pymysql", "MySQLdb": "mysqlclient"},
    **{"pyodbc": "pyodbc", "boto3": "boto3", "google": "google-cloud-storage", "azure": "azure-storage-blob"},
}
"""Packages that databases and artifact stores need, by the modules that MLflow and SQLAlchemy import."""

READ_ONLY = re.compile(
    r"(attempt to write a readonly database|unable to open database file|read-only (?:transaction|file system)"
    r"|permission denied for \w+ \w+)",
    re.IGNORECASE,
)
"""Matches what databases say of a store that this user may not write to."""

NOT_MLFLOW = re.compile(
    r"error code (?:3\d\d|400|403|404|405|410|501)\b.*Response body: '\s*(?:<|'|$)|not in a valid JSON format"
)
"""Matches MLflow's messages about an answer that no tracking server gives."""


def remedy(text: str, address: str, is_reached: bool = False) -> str:
    """Return a refusal as one line with its remedy, or an empty text if it is of no known kind.

    `is_reached`: the server has answered another request before.
    """
    server = f"the tracking server {address}"
    if found := re.search(r"experiment (\S+) must be in the 'active' state|a deleted experiment '(.+?)' as", text):
        return deleted_experiment(found[1] or found[2])
    if found := re.search(r"MLFLOW_EXPERIMENT_ID environment variable value `(.*?)`|No Experiment with id=(\S+)", text):
        fault = f"there is no experiment {found[1] or found[2]} on {address} (MLFLOW_EXPERIMENT_ID)"
        return f"{fault}; `mlflow experiments search` lists them: choose one of those, or unset the variable"
    if "Invalid Host header" in text:
        host = urlsplit(address).netloc.rpartition("@")[2]
        return f"{server} does not accept requests for {host}; start `mlflow server` with --allowed-hosts {host}"
    if "Cross-origin request blocked" in text:
        advice = "start `mlflow server` with --cors-allowed-origins ORIGIN, the address that a proxy adds to requests"
        return f"{server} blocks requests with a foreign Origin header; {advice}"
    if found := READ_ONLY.search(text):
        return read_only(found[1], address)
    if found := re.search(r"out-of-date database schema \(found version (\w+)", text):
        return _other_schema(found[1], address)
    if re.search(r"error code 400\b.*(HTTP request (was sent )?to (an )?HTTPS|speaking plain HTTP)", text):
        return f"{server} expects https; write https:// in MLFLOW_TRACKING_URI"
    if re.search(r"error code 407\b", text):
        return f"{server} cannot be reached: {_proxy(address)}"
    if re.search(r"error code 413\b|413 Client Error", text):
        advice = "have its limit raised (client_max_body_size in nginx)"
        return f"{server}, or the proxy in front of it, does not accept a file of this size (error 413); {advice}"
    if is_reached and (found := re.search(r"endpoint (\S+) failed with error code 404\b.*Response body: '\s*<", text)):
        return f"{server} has no {found[1]}: its MLflow is older than the {mlflow.__version__} here; upgrade the server"
    if NOT_MLFLOW.search(text):
        return other_server(address, re.search(r"error code (\d+)", text))
    return ""


def deleted_experiment(experiment: str) -> str:
    """Return the line for a deleted experiment, given by id or name."""
    number = experiment if experiment.isdecimal() else "ID"
    restore = f"restore it with `mlflow experiments restore --experiment-id {number}`"
    return f"the experiment {experiment} is deleted; {restore}, or {NAMES}"


def unreachable(text: str, address: str) -> tuple[str, str]:
    """Return why a server gives no answer, or an empty text if the error's own words are best, and what to do."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = re.search(r"certificate verify failed: (.+?)\.? \(_ssl", text)
        why = f"its certificate is not accepted: {reason[1] if reason else 'verification failed'}"
        if "mismatch" in why:
            return why, "write the name that the certificate is for in MLFLOW_TRACKING_URI"
        if "expired" in why or "not yet valid" in why:
            return why, "have it renewed, or set the clock of this machine"
        authority = "set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of the server or of its authority (PEM)"
        return why, f"{authority}, or MLFLOW_TRACKING_INSECURE_TLS=true to trust any"
    if found := re.search(r"TLS CA certificate bundle, invalid path: (\S+)", text):
        variables = "MLFLOW_TRACKING_SERVER_CERT_PATH, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
        return f"there is no file {found[1]}", f"correct {variables}"
    if re.search("WRONG_VERSION_NUMBER|HTTP_REQUEST", text):
        return "it does not speak https", "write http:// in MLFLOW_TRACKING_URI"
    if re.search("ProxyError|Unable to connect to proxy|Tunnel connection failed", text):
        why, _, advice = _proxy(address).partition("; ")
        return why, advice
    if "mlflow-artifacts/" in text and re.search(
        "Connection aborted|reset by peer|too many 5|error code 5|50\\d S", text
    ):
        return "it does not store artifacts", "read the server's log: it may not be able to write its artifact folder"
    if found := re.search(r"too many (\d+) error responses|error code (50\d)|\b(50\d) Server Error", text):
        return f"it answers with error {next(filter(None, found.groups()))}", "read the server's log"
    if re.search("RemoteDisconnected|ConnectionResetError", text) and address.startswith("http:"):
        return "it closes the connection", "start it, or check MLFLOW_TRACKING_URI: it may expect https://"
    return "", "start it, or check MLFLOW_TRACKING_URI"


def other_version(version: str, address: str) -> str:
    """Return the line for a server of an incompatible version of MLflow; an empty text for a compatible one."""
    found = re.fullmatch(r"(\d+)\.\d+[\w.+-]*", version)
    if found is None or int(found[1]) >= 3:
        return ""
    server = f"the tracking server {address} runs MLflow {version}, which cannot hold fsat's taggers"
    return f"{server}; expected 3 or later: upgrade it, then its database with `mlflow db upgrade`"


def unwritable_folder(folder: Path, reason: str = "no permission") -> str:
    """Return the line for an artifact folder that this user cannot write to."""
    advice = "make it writable, or choose an experiment whose artifacts are elsewhere (MLFLOW_EXPERIMENT_NAME)"
    return f"the artifact folder {folder} cannot be written: {reason}; {advice}"


def missing_package(module: str, address: str) -> str:
    """Return the line for a database or an artifact store that needs a module; an empty text for other modules."""
    if not (package := PACKAGES.get(module.partition(".")[0], "")):
        return ""
    advice = f"`pip install {package}`, or set MLFLOW_TRACKING_URI to a server, http://HOST:PORT"
    driver = " and the address postgresql+psycopg2://..." if module == "psycopg" else ""
    return f"{address} needs the Python package {package}{driver}, which is not installed; {advice}"


def read_only(reason: str, address: str) -> str:
    """Return the line for a database that this user cannot write to."""
    store = "choose another store with MLFLOW_TRACKING_URI"
    if address.startswith("sqlite:"):
        file = address.partition("///")[2].partition("?")[0].removeprefix("file:")
        advice = f"make {file} and its folder writable for this user, or {store}"
    else:
        advice = f"grant this user the right to write, or {store}"
    return f"the database {address} cannot be written ({reason}); {advice}"


def _other_schema(found: str, address: str) -> str:
    schema = f"the database {address} has the schema of another version of MLflow (revision {found})"
    known = Path(mlflow.__file__).parent.glob(f"store/db_migrations/versions/{found}_*.py")
    if not any(known):
        return f"{schema}, newer than the {mlflow.__version__} here; `pip install --upgrade mlflow`"
    return f"{schema}; back it up, then run `mlflow db upgrade {address}`"


def other_server(address: str, status: re.Match[str] | None = None) -> str:
    """Return the line for an address where something else than a tracking server answers."""
    answer = f"answers with error {status[1]}, but" if status else "answers, but"
    advice = "another program listens there: check host, port and path in MLFLOW_TRACKING_URI"
    return f"{address} {answer} not as an MLflow tracking server does; {_through_proxy(address) or advice}"


def _proxy(address: str) -> str:
    """Return why the proxy that the environment sets is of no use, and what to do."""
    variable = f"{urlsplit(address).scheme or 'http'}_proxy".upper()
    host = urlsplit(address).hostname or "HOST"
    fault = f"the proxy set by {variable} does not let the request through"
    return f"{fault}; correct {variable}, with user and password if it asks for them, or set NO_PROXY={host}"


def _through_proxy(address: str) -> str:
    """Return what to do if requests to the address go through a proxy, which may be what answers."""
    from requests.utils import get_environ_proxies

    if not address.startswith("http") or not get_environ_proxies(address, no_proxy=None):
        return ""
    host = urlsplit(address).hostname or "HOST"
    return f"it may be the proxy of the environment: set NO_PROXY={host}, or check MLFLOW_TRACKING_URI"
