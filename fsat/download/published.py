"""What every download has: archives with addresses and checksums, a licence, a citation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fsat.download.fetch import ZIP, FileKind


@dataclass(frozen=True)
class Archive:
    """One file that is fetched: a zip file to unpack, or a model as it is.

    Attributes:
        checksum: ``algorithm:hex``.
        targets: the path in the finished folder of each folder (with ``/`` at its end) or file of a zip file; of
            another kind of file: its own path, by its name.
        fetched_bytes, unpacked_bytes: about the size of the archive, and of the unpacked files; 0 for a file that is
            put in its place as it is.
        most_bytes: maximum size that is fetched and unpacked.
        address: end of its address, if that is not its name.
    """

    name: str
    checksum: str
    targets: Mapping[str, str]
    fetched_bytes: int
    unpacked_bytes: int
    most_bytes: int = 10_000_000_000
    kind: FileKind = ZIP
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Published(ABC):
    """Something published that becomes a folder.

    Attributes:
        base_url, query: begin and end of the archives' addresses.
        archives: in the order of downloading.
    """

    title: str
    base_url: str
    archives: tuple[Archive, ...]
    licence: str
    citation: str
    query: str = ""

    def url(self, archive: Archive) -> str:
        """Return an archive's address."""
        return f"{self.base_url}/{archive.address or archive.name}{self.query}"

    @property
    @abstractmethod
    def last(self) -> str:
        """The name in the finished folder that is put in its place last."""

    @property
    def names(self) -> set[str]:
        """The names in the finished folder."""
        return {target.split("/")[0] for archive in self.archives for target in archive.targets.values()} | {self.last}

    @abstractmethod
    def is_complete(self, folder: Path) -> bool:
        """Return whether the folder has everything."""

    @abstractmethod
    def finish(self, folder: Path) -> None:
        """Add to the folder of an unpacked archive what it lacks; raise `DataError` if it is not as expected."""

    @abstractmethod
    def verify(self, paths: Mapping[str, Path], again: str) -> None:
        """Raise `DataError`, which ends with the advice `again`, unless all is there; `paths` by `names`."""

    @abstractmethod
    def summary(self, folder: Path) -> list[str]:
        """Return lines with content, licence, citation, and what to do next."""
