"""The generated sounds: shaped and labelled like FSDKaggle2018, the same for the same seed, and like their names."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from helpers import read_csv

from fsat.data.manifest import read_manifest
from fsat.data.synth import CLASSES, SIBLINGS, synthesise, write_dataset


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "sounds"
    write_dataset(folder, seed=7, clips_per_class=5, test_clips_per_class=1)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_bytes_for_the_same_seed_only(tmp_path):
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        write_dataset(tmp_path / name, seed, clips_per_class=1, test_clips_per_class=1)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "again") != bytes_of(tmp_path / "other")


def test_generated_sounds_are_a_dataset_without_problems_but_for_one_empty_test_file(sounds):
    manifest = read_manifest(sounds)
    assert manifest.labels == sorted(CLASSES)
    assert len(CLASSES) >= 10
    assert len(manifest.train) == 5 * len(CLASSES)
    assert [problem.reason for problem in manifest.problems] == ["no samples in it"]
    seconds = manifest.train["frames"] / manifest.train["samplerate"]
    assert 0.3 <= seconds.min() < 0.5
    assert 2 < seconds.max() <= 5
    assert set(manifest.train["label"].value_counts()) == {5}
    assert set(manifest.train["samplerate"]) == {44100}


def test_labels_are_noisy_as_promised(sounds):
    table = pd.read_csv(sounds / "train.csv").set_index("fname")
    truth = pd.read_csv(sounds / "train_truth.csv").set_index("fname")["label"].loc[table.index]
    unverified, wrong = table["manually_verified"] == 0, table["label"] != truth
    assert unverified.mean() == pytest.approx(0.6, abs=0.02)
    assert wrong[unverified].mean() == pytest.approx(1 / 3, abs=0.03)
    assert not wrong[~unverified].any()
    assert all(SIBLINGS[is_really] == said for is_really, said in zip(truth[wrong], table["label"][wrong], strict=True))


def test_the_test_part_has_a_truth_table(sounds):
    truth = read_csv(sounds / "test_post_competition.csv")
    fnames = [row["fname"] for row in read_csv(sounds / "sample_submission.csv")]
    assert {row["fname"] for row in truth} == set(fnames)
    assert [row["usage"] for row in truth].count("Ignored") == 1
    assert {row["usage"] for row in truth} == {"Public", "Private", "Ignored"}
    empty = [fname for fname in fnames if sf.info(sounds / "audio_test" / fname).frames == 0]
    assert [row["fname"] for row in truth if row["label"] == "None"] == empty


def five_sounds(label: str) -> np.ndarray:
    return np.stack([synthesise(label, 1.0, 44100, np.random.default_rng(seed)) for seed in range(5)])


def powers(label: str) -> np.ndarray:
    """Power spectra of five sounds of a class, in steps of 1 Hz."""
    return np.abs(np.fft.rfft(five_sounds(label))) ** 2


def centroid(label: str) -> float:
    """Mean spectral centroid in Hz."""
    power = powers(label)
    return float(((power * np.arange(22051)).sum(axis=1) / power.sum(axis=1)).mean())


def flatness(label: str) -> float:
    """Mean spectral flatness between 100 Hz and 8 kHz: 1 for noise, 0 for a tone."""
    power = powers(label)[:, 100:8000] + 1e-12
    return float((np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)).mean())


def test_classes_sound_like_their_names():
    assert centroid("Bass_drum") < 300 < centroid("Snare_drum") < centroid("Hi-hat")
    assert centroid("Cello") < centroid("Flute") < centroid("Squeak") * 1.5
    assert flatness("Applause") > 20 * flatness("Flute")
    drums, flutes = (np.square(five_sounds(label)) for label in ("Snare_drum", "Flute"))
    assert (drums[:, 22050:].sum(axis=1) < 0.2 * drums.sum(axis=1)).all()  # struck
    assert (flutes[:, 22050:].sum(axis=1) > 0.3 * flutes.sum(axis=1)).all()  # sustained


@pytest.mark.parametrize("label", CLASSES)
def test_every_class_varies_and_keeps_within_range(label):
    one, two = (synthesise(label, 0.7, 44100, np.random.default_rng(seed)) for seed in (1, 2))
    for samples in (one, two):
        assert samples.dtype == np.float32
        assert samples.shape == (30870,)
        assert 0.01 < np.abs(samples).max() <= 1
    assert np.abs(one - two).max() > 0.01
