"""Tags of recordings are scored against annotations, and thresholds are chosen and used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import write_wav
from taggers import TINY, register_tagger, write_tagger

from fsat.cli import cli
from fsat.data.audio import decode
from fsat.options import TagSettings
from fsat.tagging import Tagger
from fsat.tracking.registry import open_tagger

pytestmark = pytest.mark.slow

RATE, MINUTES = 8000, 10
LABELS = ("Dog bark", "Rain", "Rooster")
WINDOWS = TagSettings(window=5, hop=2.5)
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"


@pytest.fixture(scope="module")
def tagger(store) -> Tagger:
    """The champion, which knows three of the classes of ESC-10."""
    register_tagger(write_tagger(store / "tagger", [TINY], labels=LABELS))
    return open_tagger("models:/fsat@champion")


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory) -> Path:
    """A recording of ten minutes made of real clips, annotated in Audacity's and in Raven's format."""
    folder = tmp_path_factory.mktemp("real")
    clips = pd.read_csv(shared / "data/esc10/clips.csv")
    rng = np.random.default_rng(0)
    samples, events = np.zeros(60 * MINUTES * RATE, np.float32), []
    starts = np.arange(0, 60 * MINUTES - 6, 4.2) + rng.uniform(0, 0.9, len(np.arange(0, 60 * MINUTES - 6, 4.2)))
    for start, clip in zip(starts.round(3).tolist(), clips.sample(frac=1, random_state=0).itertuples(), strict=False):
        label = LABELS[(hash_of(clip.fname)) % 3]
        sound = decode(shared / "data/esc10/clips" / clip.fname, RATE)[: int(rng.integers(1, 6)) * RATE]
        at = round(start * RATE)
        samples[at : at + len(sound)] += 0.5 * sound
        events.append((start, start + len(sound) / RATE, label))
    write_wav(folder / "sounds/day.wav", samples.clip(-1, 1), RATE)
    write_audacity(folder / "audacity/day.txt", events)
    rows = [f"{i}\t{view} 1\t1\t{start:.9f}\t{end:.9f}\t0.0\t4000.0\t{label}\n"
            for i, (start, end, label) in enumerate(events, 1) for view in ("Waveform", "Spectrogram")]  # fmt: skip
    (folder / "raven").mkdir()
    (folder / "raven/day.Table.1.selections.txt").write_text(RAVEN + "".join(rows))
    return folder


def hash_of(name: str) -> int:
    return sum(name.encode())


def write_audacity(path: Path, events) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in events))
    return path


def run_evaluate(input: Path, annotations: Path, output: Path, *options: str):
    arguments = ["evaluate", "--input", input, "--annotations", annotations, "--output", output, *options]
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_try(tagger, real, tmp_path):
    done = run_evaluate(real / "sounds", real / "audacity", Path("/tmp/me/evaltry"), "--hop", "2.5")
    print(done.output)
    assert done.exit_code == 0, done.exception
