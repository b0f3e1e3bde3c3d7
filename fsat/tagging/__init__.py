"""Tagging: clips or recordings in, labels with scores out.

MLflow loads a registered tagger through `_load_pyfunc`, with the copy of fsat that was registered with it. This is the
one place where the core imports `fsat.serving`, and only in the process of `mlflow models serve`.
"""

from __future__ import annotations

import sys

from fsat.tagging.pyfunc import PyfuncTagger
from fsat.tagging.tagger import Member, Tagger
from fsat.tagging.tagger_folder import MemberFiles, write

__all__ = ["Member", "MemberFiles", "PyfuncTagger", "Tagger", "write"]

SCORING_SERVER = "mlflow.pyfunc.scoring_server.app"
"""The module of MLflow's scoring server. It loads the model while it is being imported."""


def _load_pyfunc(data_path: str) -> PyfuncTagger:
    """Load a tagger for `mlflow.pyfunc.load_model`; in `mlflow models serve`, set up `fsat.serving` as well."""
    if SCORING_SERVER in sys.modules:
        from fsat.serving.middleware import load_served

        return load_served(data_path)
    return PyfuncTagger(Tagger(data_path))
