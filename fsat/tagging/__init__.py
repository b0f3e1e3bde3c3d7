"""The tagger: an ensemble's members in one folder, clips in, top-k labels with scores out.

MLflow loads it through `_load_pyfunc` as a pyfunc model, with a copy of this package, so it needs the dependencies but
no checkout.
"""

from __future__ import annotations

from fsat.serving import server
from fsat.serving.limits import Limits
from fsat.tagging.folder import MemberFiles, write
from fsat.tagging.tagger import Member, Tagger

__all__ = ["Member", "MemberFiles", "Tagger", "write"]


def _load_pyfunc(data_path: str) -> Tagger:
    """What `mlflow.pyfunc.load_model` calls; in `mlflow models serve`, this is also the time to get ready for that."""
    if not server.in_server():
        return Tagger(data_path)
    with server.starting():
        limits = Limits.from_environment()
        tagger = Tagger(data_path)
        tagger.max_seconds = limits.max_seconds
        tagger.warm_up()
    server.install(limits)
    return tagger
