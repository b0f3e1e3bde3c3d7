"""Everything that `python -m fsat download` knows, by name."""

from __future__ import annotations

from collections import ChainMap

from fsat.download.published import Published
from fsat.download.published_backbones import BACKBONES
from fsat.download.published_datasets import DATASETS

PUBLISHED: ChainMap[str, Published] = ChainMap({}, BACKBONES, DATASETS)
"""Datasets and backbones; in the order of their tables."""
