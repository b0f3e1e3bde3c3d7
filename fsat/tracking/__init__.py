"""The only place that talks to MLflow, which is told to be quiet before anything imports it from here."""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing waits for a network
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for every small file
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is for results

import mlflow as _mlflow  # noqa: F401  (it sets its own levels when it is imported)

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what is raised as well
logging.getLogger("alembic").setLevel(logging.WARNING)
