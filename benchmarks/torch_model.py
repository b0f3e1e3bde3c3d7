"""conv1d in idiomatic PyTorch, for comparison with fsat's training.

It has the same layers, Adam at 0.001 and cross-entropy; a Dataset of decoded clips in memory with random crops and
normalisation; a DataLoader with two workers; and PyTorch's defaults for threads and memory layout on the CPU.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

LENGTH, BATCH = 32000, 64
BLOCKS = [(16, 9, 16, 0.1), (32, 3, 4, 0.1), (32, 3, 4, 0.1), (256, 3, None, 0.2)]


class Crops(Dataset):
    """Random crops of clips, scaled to [-0.5, 0.5]."""

    def __init__(self, clips: list[np.ndarray], targets: np.ndarray) -> None:
        self.clips, self.targets = clips, targets

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        clip = torch.from_numpy(self.clips[index])
        spare = len(clip) - LENGTH
        if spare >= 0:
            start = int(torch.randint(spare + 1, ()))
            crop = clip[start : start + LENGTH]
        else:
            start = int(torch.randint(-spare + 1, ()))
            crop = nn.functional.pad(clip, (start, -spare - start))
        low, high = crop.min(), crop.max()
        return ((crop - low) / (high - low + 1e-6) - 0.5)[None], int(self.targets[index])


def conv1d(n_classes: int) -> nn.Sequential:
    """Build the layers of `fsat.models.notebook.conv1d`; the softmax is part of the loss."""
    parts: list[nn.Module] = []
    channels = 1
    for filters, size, pool, rate in BLOCKS:
        parts += [nn.Conv1d(channels, filters, size), nn.ReLU(), nn.Conv1d(filters, filters, size), nn.ReLU()]
        parts += [nn.MaxPool1d(pool) if pool else nn.AdaptiveMaxPool1d(1), nn.Dropout(rate)]
        channels = filters
    parts += [nn.Flatten(), nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, 1028), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(1028, n_classes))


def train(decoded: str, n_classes: int, epochs: int, bfloat16: bool) -> dict[str, float]:
    """Train on decoded clips.

    Args:
        decoded: .npz file from `sounds.write_decoded`.
        n_classes: number of classes.
        epochs: number of epochs; the first is not counted.
        bfloat16: whether to use autocast.

    Returns:
        ``clips_per_second``, median over the epochs after the first, and the number of ``parameters``.
    """
    torch.manual_seed(1001)
    with np.load(decoded) as file:
        samples, lengths, targets = file["samples"], file["lengths"], file["targets"]
    clips = np.split(samples, np.cumsum(lengths)[:-1])
    loader = DataLoader(Crops(clips, targets), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    model = conv1d(n_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.CrossEntropyLoss()
    rates = []
    for _ in range(epochs):
        start = time.perf_counter()
        for inputs, labels in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                loss = loss_of(model(inputs), labels)
            loss.backward()
            optimizer.step()
        rates.append(len(clips) / (time.perf_counter() - start))
    return {
        "clips_per_second": statistics.median(rates[1:]),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }
