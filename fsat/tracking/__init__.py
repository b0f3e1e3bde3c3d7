"""Everything that talks to MLflow: runs, fold artifacts, live metrics, ownership, the registry and descriptions."""

import os

# MLflow reads these when it is imported, which every module of this package does after this line.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no request but those to the tracking server
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it shows one for every small file
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is for results
