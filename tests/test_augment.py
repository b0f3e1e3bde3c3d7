"""Augmentation: parameters drawn from one generator, and what each does to a spectrogram."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from fsat.config import Config
from fsat.data.decoded_clips import Clips
from fsat.data.logmel import spectra
from fsat.training import batches as batches_module
from fsat.training.augment import MOST_ATTENUATION, Draws, add, draw
from fsat.training.batches import TrainingClips
from fsat.training.targets import Targets

PLAIN = Config(model="cnn_logmel", sampling_rate=8000, audio_duration=0.25, n_mels=16, batch_size=8)
FRAMES, MELS = PLAIN.n_frames, PLAIN.n_mels
ALL = replace(PLAIN, mixup=0.4, gain=6, stretch=0.3, mel_shift=3, time_mask=0.08, mel_mask=5)
WAVEFORM = Config(model="dummy1d", sampling_rate=20, audio_duration=1, batch_size=8)


def draws_of(config: Config, lengths: list[int], seed: int = 0) -> Draws:
    return draw(np.random.default_rng(seed), np.arange(len(lengths)), np.array(lengths), config.n_frames, config)


def training_clips(config: Config, count: int = 21) -> TrainingClips:
    """Clips of noise; each is a class of its own, so that the targets identify the clips."""
    rng = np.random.default_rng(0)
    low, high = (300, 6000) if config.use_logmel else (5, 60)
    arrays = [(0.1 * rng.standard_normal(rng.integers(low, high))).astype(np.float32) for _ in range(count)]
    targets = Targets(np.arange(count), np.ones(count, dtype=bool), count)
    return TrainingClips(Clips.from_arrays(arrays, config.sampling_rate), targets, config)


# --- draws -----------------------------------------------------------------------------------------


def test_only_configured_parameters_are_drawn() -> None:
    plain = draws_of(PLAIN, [40] * 9)
    assert plain.lengths.tolist() == [FRAMES] * 9
    optional = {"gains", "shifts", "masks", "shares", "partners"}
    assert {spec.name for spec in fields(Draws) if getattr(plain, spec.name) is None} == optional
    for setting, name in (("gain", "gains"), ("mel_shift", "shifts"), ("time_mask", "masks"), ("mel_mask", "masks"),
                          ("mixup", "shares"), ("mixup", "partners")):  # fmt: skip
        draws = draws_of(replace(PLAIN, **{setting: getattr(ALL, setting)}), [40] * 9)
        assert getattr(draws, name) is not None
        np.testing.assert_array_equal(draws.order, plain.order)
        np.testing.assert_array_equal(draws.starts, plain.starts)


def test_only_candidates_are_drawn() -> None:
    candidates = np.array([2, 3, 11, 30])
    draws = draw(np.random.default_rng(0), candidates, np.full(40, 50), FRAMES, ALL)
    assert sorted(draws.order.tolist()) == candidates.tolist()
    assert {len(getattr(draws, spec.name)) for spec in fields(Draws)} == {4}


def test_draws_reach_their_limits() -> None:
    lengths = [40, 5, 16, 200] * 500
    draws = draws_of(ALL, lengths)
    for values, low, high in ((draws.gains, -6, 6), (draws.shares, 0.5, 1), (draws.shifts, -3, 3),
                              (draws.lengths, round(FRAMES / 1.3), round(FRAMES * 1.3))):  # fmt: skip
        assert low <= values.min() < low + 0.1
        assert high - 0.1 < values.max() <= high
    assert draws.shares.dtype == draws.gains.dtype == np.float32
    assert 0.4 < (draws.lengths < FRAMES).mean() + (draws.lengths == FRAMES).mean() / 2 < 0.6
    spare = np.array(lengths)[draws.order] - draws.lengths
    first, last = np.minimum(spare, 0), np.maximum(spare, 0)
    assert ((first <= draws.starts) & (draws.starts <= last)).all()
    assert (draws.starts == first).any()
    assert (draws.starts == last).any()
    partners = draws_of(ALL, [40] * 21).partners  # within the batch
    assert [sorted(partners[first : first + 8].tolist()) for first in (0, 8, 16)] == [list(range(n)) for n in (8, 8, 5)]


def test_masks_have_every_width_and_position() -> None:
    masks = draws_of(ALL, [40] * 3000).masks
    assert masks.shape == (3000, 4, 2)
    for part, width, extent in ((masks[:, :2], 5, FRAMES), (masks[:, 2:], 5, MELS)):  # 0.08 s: 5 frames
        first, end = part[..., 0], part[..., 1]
        assert set((end - first).ravel().tolist()) == set(range(width + 1))
        assert (first.min(), end.max()) == (0, extent)
    wide = draws_of(replace(PLAIN, time_mask=9, mel_mask=200), [40] * 1000).masks
    assert (wide.min(), wide[:, :2].max(), wide[:, 2:].max()) == (0, FRAMES, MELS)
    mel_only = draws_of(replace(PLAIN, mel_mask=3), [40] * 50).masks
    assert (mel_only[:, :2, 0] == mel_only[:, :2, 1]).all()
    assert (mel_only[:, 2:, 0] != mel_only[:, 2:, 1]).any()


# --- a whole epoch ---------------------------------------------------------------------------------


def slow_epoch(clips: TrainingClips, config: Config, fold: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make the batches of an epoch clip by clip."""
    source = spectra(clips.clips, config)
    whole = [source.crops(np.array([i]), np.array([0]), int(n))[0] for i, n in enumerate(source.n_frames)]
    levels = np.concatenate(whole).mean(axis=0)
    rng = np.random.default_rng([config.seed, fold, epoch])
    draws = draw(rng, np.arange(len(whole)), source.n_frames, config.n_frames, config)
    crops = []
    for k, i in enumerate(draws.order):
        length, start = int(draws.lengths[k]), int(draws.starts[k])
        padded = np.pad(whole[i], ((100, 100), (0, 0)))[100 + start : 100 + start + length]
        crop = np.stack([padded[j * length // FRAMES] for j in range(FRAMES)])
        crop = np.where(crop > 0, np.maximum(crop + draws.gains[k], 0), 0)  # silence stays silence
        shift = int(draws.shifts[k])
        crops.append(np.stack([crop[:, min(max(band - shift, 0), MELS - 1)] for band in range(MELS)], axis=1))
    one_hot = np.eye(clips.targets.n_classes)
    result = []
    for first in range(0, len(crops), config.batch_size):
        inputs, targets = [], []
        for k in range(first, min(first + config.batch_size, len(crops))):
            other, share = first + int(draws.partners[k]), float(draws.shares[k])
            mixed = share * crops[k] + (1 - share) * crops[other]
            for j, (low, high) in enumerate(draws.masks[k]):
                where = (slice(low, high),) if j < 2 else (slice(None), slice(low, high))
                mixed[where] = np.broadcast_to(levels, mixed.shape)[where]
            inputs.append(mixed[..., np.newaxis])
            mine, others = (one_hot[clips.targets.classes[draws.order[place]]] for place in (k, other))
            targets.append(share * mine + (1 - share) * others)
        result.append((np.stack(inputs), np.stack(targets)))
    return result


def test_an_epoch_is_what_was_drawn_with_its_seed() -> None:
    """Inputs and targets are mixed by the same shares."""
    clips = training_clips(ALL)
    assert clips.n_batches(4) == 3
    pairs = zip(clips.batches(1, 4), slow_epoch(clips, ALL, 1, 4), strict=True)
    for (inputs, targets), (others, other_targets) in pairs:
        assert inputs.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(inputs, others, atol=1e-3)
        np.testing.assert_allclose(targets, other_targets, atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)


def test_waveforms_are_mixed_too() -> None:
    config = replace(WAVEFORM, mixup=0.5)
    clips, plain = training_clips(config), training_clips(WAVEFORM)
    for (inputs, targets), (crops, one_hot) in zip(clips.batches(0, 0), plain.batches(0, 0), strict=True):
        shares = targets @ one_hot.T  # how much of each clip of the batch
        assert (shares.diagonal() >= 0.5).all()
        assert (shares.diagonal() < 1).any()
        np.testing.assert_allclose(inputs[..., 0], shares @ crops[..., 0], atol=1e-6)


def test_sounds_of_several_labels_are_added_as_powers() -> None:
    """A partner is as loud as the clip at a share of 0.5, and `MOST_ATTENUATION` weaker at 1; silence adds nothing."""
    draws = Draws(np.arange(3), np.zeros(3, int), np.zeros(3, int), shares=np.float32([0.5, 1, 1]),
                  partners=np.array([1, 0, 2]))  # fmt: skip
    decibels = np.float32([[60, 0], [60, 0], [0, 30]])[:, :, np.newaxis]
    result = add(decibels, draws, slice(0, 3), in_decibels=True)[..., 0]
    weak = 10 * np.log10(1 + 10 ** (-MOST_ATTENUATION / 10))
    np.testing.assert_allclose(result, [[60 + 10 * np.log10(2), 0], [60 + weak, 0], [0, 30 + weak]], atol=1e-3)
    assert result.dtype == np.float32
    waves = np.float32([[0.5, -0.5], [0.25, 0.25], [0.5, 0]])
    gain = 10 ** (-MOST_ATTENUATION / 20)
    expected = [[0.75, -0.25], [0.25 + gain * 0.5, 0.25 - gain * 0.5], [0.5 * (1 + gain), 0]]
    np.testing.assert_allclose(add(waves, draws, slice(0, 3), in_decibels=False), expected, rtol=1e-6)
    assert add(waves, replace(draws, shares=None), slice(0, 3), in_decibels=False) is waves


def test_batches_do_not_depend_on_threads_and_leave_the_spectrograms_unchanged(monkeypatch) -> None:
    clips = training_clips(ALL, 50)
    spectrograms = np.arange(50), np.zeros(50, int), 50
    before = clips.spectra.crops(*spectrograms)
    first = list(clips.batches(1, 2))
    np.testing.assert_array_equal(clips.spectra.crops(*spectrograms), before)
    for workers, ahead in ((1, 1), (1, 3), (5, 9)):
        monkeypatch.setattr(batches_module, "WORKERS", workers)
        monkeypatch.setattr(batches_module, "AHEAD", ahead)
        for batch, other in zip(first, clips.batches(1, 2), strict=True):
            assert all((a == b).all() for a, b in zip(batch, other, strict=True))
