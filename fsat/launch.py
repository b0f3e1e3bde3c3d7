"""How work is started: on what machines, how many folds at a time, and where they can go on from."""

from __future__ import annotations

from dataclasses import dataclass

from fsat.errors import ConfigError, printable


@dataclass(frozen=True)
class Cluster:
    """The machines that work is spread over.

    Attributes:
        kind: ``none`` for this machine alone, or ``ray``.
        address: of the Ray cluster, ``HOST:PORT``; ``auto`` for the one that this machine belongs to, or else one that
            is started here for as long as the command takes.
        cpus: that each task needs; ``auto`` for the threads that a fold uses, or fewer where no node has as many.
        gpus: that each task needs; ``auto`` for one where the cluster has any.

    Raises:
        ConfigError: a value is not allowed.
    """

    kind: str = "none"
    address: str = "auto"
    cpus: str = "auto"
    gpus: str = "auto"

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if self.address != "auto" and not (host and port.isdecimal() and "/" not in host):
            raise ConfigError(f"ray_address={printable(self.address)}: expected auto or HOST:PORT")
        for name in ("cpus", "gpus"):
            given = getattr(self, name)
            try:
                fine = given == "auto" or 0 <= float(given) < float("inf")
            except ValueError:
                fine = False
            if not fine:
                raise ConfigError(f"ray_{name}={printable(given)}: expected auto or a number of at least 0")


ALONE = Cluster()
"""This machine."""


@dataclass(frozen=True)
class Launch:
    """How folds are started; it changes none of their results.

    Attributes:
        resume: go on with a fold that was stopped, rather than begin it again; and do not train one by itself anew that
            is FINISHED.
        checkpoint_to: ``local``, or ``server`` to keep checkpoints there too, so that another machine can go on.
        parallel_folds: how many folds are trained at the same time on this machine; ``auto`` for what is quickest here.
        cluster: the machines to train on; with Ray, it places as many folds at a time as there is room for.
    """

    resume: bool = True
    checkpoint_to: str = "local"
    parallel_folds: str = "auto"
    cluster: Cluster = ALONE
