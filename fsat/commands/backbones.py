"""The backbone of a study: found, checked, and settled in its Config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from fsat.backbones.descriptor import Backbone, read_backbone
from fsat.backbones.library import keep, kept
from fsat.backbones.probe import checked_size
from fsat.config import Config, digest_of
from fsat.data.background_noise import background_noise
from fsat.data.dataset import Dataset
from fsat.data.embeddings import Embed, embed_clips
from fsat.errors import ConfigError, FsatError, WindowError, printable
from fsat.tracking.backbone_runs import fetch_backbone, store_backbone


def settle_backbone(config: Config, store: bool = True) -> Config:
    """Return the Config with its backbone settled; other models have none.

    The backbone becomes ``NAME@DIGEST``, `embedding_size` and `window_hop` those of the backbone. One given by its path
    is copied to the cache folder, and if `store`, stored on the tracking server by the open run.

    Raises `FsatError` if it cannot be used, or settings contradict it.
    """
    if not config.use_embedding:
        return replace(config, backbone="none")
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
        if store:
            store_backbone(backbone)
    hop = config.window_hop or backbone.hop or config.audio_duration / 2
    return replace(config, backbone=backbone.ref, embedding_size=size, window_hop=hop)


def find_backbone(backbone: str) -> Backbone:
    """Return the backbone of a descriptor, or ``NAME@DIGEST`` from the cache folder or the tracking server."""
    if digest := digest_of(backbone):
        return kept(digest) or fetch_backbone(backbone)
    return read_backbone(backbone)


def resolve_config(given: Mapping[str, Any], preset: str | None = None) -> Config:
    """Return the settings of a preset and others that override it; None counts as not given.

    Sampling rate and windows of a model on embeddings are by default those of its backbone. Raises `ConfigError` for
    settings that contradict each other, and `FsatError` if the backbone cannot be found.
    """
    config = Config.resolve(given, preset)
    if not config.use_embedding:
        return Config.resolve({**given, "backbone": None}, preset)
    found = find_backbone(config.backbone)
    defaults = {"sampling_rate": found.sampling_rate, "audio_duration": found.window}
    return Config.resolve(defaults | {name: value for name, value in given.items() if value is not None}, preset)


def embedding_config(backbone: str, **windows: float | None) -> tuple[Config, Backbone]:
    """Return the Config of the embeddings by a backbone, and the backbone, whose copy in the cache folder is used.

    Args:
        backbone: its descriptor, the folder of it, or ``NAME@DIGEST``.
        windows: ``audio_duration`` and ``window_hop``, None for those of the backbone.

    Raises `FsatError` if it cannot be used, or the windows contradict it.
    """
    found = find_backbone(backbone)
    config = resolve_config({"model": "embedding", "backbone": backbone, **windows})
    return settle_backbone(config, store=False), replace(found, path=keep(found).path)


def opener(backbone: Backbone) -> Callable[[], Embed]:
    """Return a function that opens a backbone when it is first called."""

    @cache
    def opened() -> Embed:
        from fsat.backbones.runtime import open_backbone

        return open_backbone(backbone).embed

    return opened


def embed_dataset(dataset: Dataset) -> None:
    """Compute the embeddings of all clips of a dataset, or find them in the cache folder; other models have none.

    Raises `FsatError` with the name of a clip for which the backbone has no embedding.
    """
    if not dataset.config.use_embedding:
        return
    try:
        embed_clips(dataset.train, dataset.config, lambda: opener(find_backbone(dataset.config.backbone))())
    except WindowError as error:
        names = [*dataset.manifest.train["fname"], *dataset.manifest.test["fname"]]
        rows = [*dataset.train.rows, *dataset.test.rows]
        raise FsatError(f"{printable(names[rows.index(error.index)])}: {error}") from error
    if dataset.config.reject == "auto":
        noise = background_noise(dataset.config.sampling_rate, dataset.config.audio_length)
        embed_clips(noise, dataset.config, opener(find_backbone(dataset.config.backbone)))
