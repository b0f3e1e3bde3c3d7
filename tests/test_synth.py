"""The generated sounds: shaped and labelled like FSDKaggle2018, the same for the same seed, and like their names."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from fsat.data.manifest import read_manifest
from fsat.data.synth import CLASSES, SIBLINGS, synthesise, write_dataset

SMALL = {"clips_per_class": 15, "test_clips_per_class": 2}
FSDKAGGLE2018 = (
    "Acoustic_guitar Applause Bark Bass_drum Burping_or_eructation Bus Cello Chime Clarinet Computer_keyboard Cough "
    "Cowbell Double_bass Drawer_open_or_close Electric_piano Fart Finger_snapping Fireworks Flute Glockenspiel Gong "
    "Gunshot_or_gunfire Harmonica Hi-hat Keys_jangling Knock Laughter Meow Microwave_oven Oboe Saxophone Scissors "
    "Shatter Snare_drum Squeak Tambourine Tearing Telephone Trumpet Violin_or_fiddle Writing"
).split()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "sounds"
    write_dataset(folder, seed=7, **SMALL)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_same_bytes_for_the_same_seed_only(sounds, tmp_path):
    write_dataset(tmp_path / "again", seed=7, **SMALL)
    write_dataset(tmp_path / "other", seed=8, **SMALL)
    assert bytes_of(tmp_path / "again") == bytes_of(sounds)
    assert bytes_of(tmp_path / "other") != bytes_of(sounds)


def test_it_is_a_dataset_without_problems_but_for_one_empty_test_file(sounds):
    manifest = read_manifest(sounds)
    assert manifest.labels == sorted(CLASSES)
    assert len(CLASSES) >= 10
    assert set(CLASSES) <= set(FSDKAGGLE2018)
    assert len(manifest.train) == 15 * len(CLASSES)
    assert [problem.reason for problem in manifest.problems] == ["no samples in it"]
    seconds = manifest.train["frames"] / manifest.train["samplerate"]
    assert 0.3 <= seconds.min() < 0.5
    assert 2 < seconds.max() <= 5
    assert manifest.train["label"].value_counts().min() >= 10
    assert set(manifest.train["samplerate"]) == {44100}


def test_labels_are_noisy_as_promised(sounds):
    table = pd.read_csv(sounds / "train.csv").set_index("fname")
    truth = pd.read_csv(sounds / "train_truth.csv").set_index("fname")["label"].loc[table.index]
    unverified = table["manually_verified"] == 0
    wrong = table["label"] != truth
    assert unverified.mean() == pytest.approx(0.6, abs=0.02)
    assert wrong[unverified].mean() == pytest.approx(1 / 3, abs=0.03)
    assert not wrong[~unverified].any()
    assert all(SIBLINGS[is_really] == said for is_really, said in zip(truth[wrong], table["label"][wrong], strict=True))


def test_the_test_part_has_a_truth_table(sounds):
    with open(sounds / "test_post_competition.csv", newline="") as file:
        truth = list(csv.DictReader(file))
    submission = pd.read_csv(sounds / "sample_submission.csv")
    assert {row["fname"] for row in truth} == set(submission["fname"])
    assert [row["usage"] for row in truth].count("Ignored") == 1
    assert {row["usage"] for row in truth} == {"Public", "Private", "Ignored"}
    empty = [name for name in submission["fname"] if sf.info(sounds / "audio_test" / name).frames == 0]
    assert [row["fname"] for row in truth if row["label"] == "None"] == empty


def powers(label: str) -> np.ndarray:
    """Power spectra of five sounds of a class, in steps of 1 Hz."""
    sounds = [synthesise(label, 1.0, 44100, np.random.default_rng(seed)) for seed in range(5)]
    return np.abs(np.fft.rfft(sounds)) ** 2


def centroid(label: str) -> float:
    """Mean spectral centroid in Hz."""
    power = powers(label)
    return float(((power * np.arange(22051)).sum(axis=1) / power.sum(axis=1)).mean())


def flatness(label: str) -> float:
    """Mean spectral flatness between 100 Hz and 8 kHz: 1 for noise, 0 for a tone."""
    power = powers(label)[:, 100:8000] + 1e-12
    return float((np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)).mean())


def test_they_sound_like_their_names():
    assert centroid("Bass_drum") < 300 < centroid("Snare_drum") < centroid("Hi-hat")
    assert centroid("Cello") < centroid("Flute") < centroid("Squeak") * 1.5
    assert flatness("Applause") > 20 * flatness("Flute")
    half = 22050
    for seed in range(5):
        drum = synthesise("Snare_drum", 1.0, 44100, np.random.default_rng(seed))
        flute = synthesise("Flute", 1.0, 44100, np.random.default_rng(seed))
        assert np.square(drum[half:]).sum() < 0.2 * np.square(drum).sum()  # struck
        assert np.square(flute[half:]).sum() > 0.3 * np.square(flute).sum()  # sustained


@pytest.mark.parametrize("label", CLASSES)
def test_every_class_varies_and_keeps_within_range(label):
    one, two = (synthesise(label, 0.7, 44100, np.random.default_rng(seed)) for seed in (1, 2))
    for samples in (one, two):
        assert samples.dtype == np.float32
        assert samples.shape == (30870,)
        assert 0.01 < np.abs(samples).max() <= 1
    assert np.abs(one - two).max() > 0.01
