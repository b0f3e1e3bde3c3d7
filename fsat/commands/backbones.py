"""The backbone of a study: found, checked, and settled in its Config."""

from __future__ import annotations

from dataclasses import replace

from fsat.backbones.descriptor import Backbone, read_backbone
from fsat.backbones.library import keep, kept
from fsat.backbones.probe import checked_size
from fsat.config import Config, digest_of
from fsat.data.dataset import Dataset
from fsat.data.embeddings import Embed, embed_clips
from fsat.errors import ConfigError
from fsat.tracking.backbone_runs import fetch_backbone, store_backbone


def settle_backbone(config: Config) -> tuple[Config, Backbone | None]:
    """Return the Config with its backbone settled, and the backbone; other models have none.

    The backbone becomes ``NAME@DIGEST``, `embedding_size` and `window_hop` those of the backbone. One given by its path
    is copied to the cache folder, and stored on the tracking server by the open run.

    Raises `FsatError` if it cannot be used, or settings contradict it.
    """
    if not config.use_embedding:
        return replace(config, backbone="none"), None
    backbone = find_backbone(config.backbone)
    if config.sampling_rate != backbone.sampling_rate:
        expected = f"the backbone {backbone.name} takes {backbone.sampling_rate}; leave the option out"
        raise ConfigError(f"sampling_rate={config.sampling_rate}: {expected}")
    if backbone.window is not None and config.audio_duration != backbone.window:
        expected = f"windows of the backbone {backbone.name} take {backbone.window:g} s; leave the option out"
        raise ConfigError(f"audio_duration={config.audio_duration:g}: {expected}")
    size = checked_size(backbone)
    if config.embedding_size not in (0, size):
        fault = f"the backbone {backbone.name} gives {size} values; leave the option out"
        raise ConfigError(f"embedding_size={config.embedding_size}: {fault}")
    if not config.backbone_digest:
        backbone = keep(backbone)
        store_backbone(backbone)
    hop = config.window_hop or backbone.hop or config.audio_duration / 2
    return replace(config, backbone=backbone.ref, embedding_size=size, window_hop=hop), backbone


def find_backbone(backbone: str) -> Backbone:
    """Return the backbone of a descriptor, or ``NAME@DIGEST`` from the cache folder or the tracking server."""
    if digest := digest_of(backbone):
        return kept(digest) or fetch_backbone(backbone)
    return read_backbone(backbone)


def embed_dataset(dataset: Dataset, backbone: Backbone) -> None:
    """Compute the embeddings of all clips of a dataset, or find them in the cache folder."""

    def opened() -> Embed:
        from fsat.backbones.runtime import open_backbone

        return open_backbone(backbone).embed

    embed_clips(dataset.train, dataset.config, opened)
