"""Augmentation: drawn from one generator before the first batch, and each does what it says on a spectrogram."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from fsat.config import Config
from fsat.data.clips import Clips
from fsat.data.logmel import Spectra, spectra
from fsat.training import batches as batches_module
from fsat.training.augment import Draws, cut, draw, mask, mix
from fsat.training.batches import TrainingClips
from fsat.training.targets import Lessons

PLAIN = Config(model="cnn_logmel", sampling_rate=8000, audio_duration=0.25, n_mels=16, batch_size=8)
FRAMES, MELS = PLAIN.n_frames, PLAIN.n_mels
ALL = replace(PLAIN, mixup=0.4, gain=6, stretch=0.3, mel_shift=3, time_mask=0.08, mel_mask=5)
WAVEFORM = Config(model="dummy1d", sampling_rate=20, audio_duration=1, batch_size=8)


def made_by_hand(lengths: list[int]) -> tuple[Spectra, list[np.ndarray]]:
    """Spectrograms in which every value says where it is: 10000 * (clip + 1) + 100 * frame + band."""
    arrays = [
        (10000.0 * (i + 1) + 100 * np.arange(n)[:, None] + np.arange(MELS)).astype(np.float32)
        for i, n in enumerate(lengths)
    ]
    return Spectra(Clips.from_arrays([array.ravel() for array in arrays], 8000), MELS), arrays


def draws_of(config: Config, lengths: list[int], seed: int = 0) -> Draws:
    return draw(np.random.default_rng(seed), np.arange(len(lengths)), np.array(lengths), config.n_frames, config)


def by_hand(n: int, **drawn: object) -> Draws:
    """No draws but those that are given: every clip from its first frame."""
    drawn = {name: np.asarray(values) for name, values in drawn.items()}
    return Draws(**{"order": np.arange(n), "lengths": np.full(n, FRAMES), "starts": np.zeros(n, int), **drawn})


EVERY = slice(None)


def noises(count: int, low: int = 300, high: int = 6000, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(0.1 * rng.standard_normal(rng.integers(low, high))).astype(np.float32) for _ in range(count)]


def training_clips(config: Config, count: int = 21, n_classes: int | None = None) -> TrainingClips:
    """Clips of noise; each is a class of its own unless told otherwise, so that the targets say which clip is where."""
    arrays = noises(count) if config.use_logmel else noises(count, 5, 60)
    classes = np.arange(count) % (n_classes or count)
    lessons = Lessons(classes, np.ones(count, dtype=bool), n_classes or count)
    return TrainingClips(Clips.from_arrays(arrays, config.sampling_rate), lessons, config)


def same(batches, others) -> bool:
    pairs = list(zip(batches, others, strict=True))
    return all((a == b).all() for pair in pairs for a, b in zip(*pair, strict=True))


# --- draws -----------------------------------------------------------------------------------------


def test_everything_random_comes_from_the_generator() -> None:
    lengths = [40, 5, 16, 200] * 10
    np.random.seed(1)
    first = draws_of(ALL, lengths)
    np.random.seed(2)
    again, other = draws_of(ALL, lengths), draws_of(ALL, lengths, seed=1)
    for spec in fields(Draws):
        np.testing.assert_array_equal(getattr(first, spec.name), getattr(again, spec.name))
        assert (getattr(first, spec.name) != getattr(other, spec.name)).any(), spec.name


def test_nothing_is_drawn_that_is_not_asked_for() -> None:
    plain = draws_of(PLAIN, [40] * 9)
    assert plain.lengths.tolist() == [FRAMES] * 9
    assert {spec.name for spec in fields(Draws) if getattr(plain, spec.name) is None} == {
        "gains", "shifts", "masks", "shares", "partners",
    }  # fmt: skip
    for setting, name in (("gain", "gains"), ("mel_shift", "shifts"), ("time_mask", "masks"), ("mel_mask", "masks"),
                          ("mixup", "shares"), ("mixup", "partners")):  # fmt: skip
        drawn = draws_of(replace(PLAIN, **{setting: getattr(ALL, setting)}), [40] * 9)
        assert getattr(drawn, name) is not None
        np.testing.assert_array_equal(drawn.order, plain.order)
        np.testing.assert_array_equal(drawn.starts, plain.starts)


@pytest.mark.parametrize("lengths", [[40] * 21, [5] * 21, [16] * 21, [15, 16, 17] * 7])
def test_order_and_places_are_the_formula(lengths: list[int]) -> None:
    """Those of the waveform models have been so since the first version; other draws would be other studies."""
    rng = np.random.default_rng(3)
    order = rng.permutation(21)
    spare = np.array(lengths)[order] - FRAMES
    starts = rng.integers(np.abs(spare) + 1) * np.sign(spare)
    drawn = draws_of(PLAIN, lengths, seed=3)
    np.testing.assert_array_equal(drawn.order, order)
    np.testing.assert_array_equal(drawn.starts, starts)


def test_only_candidates_are_drawn() -> None:
    candidates = np.array([2, 3, 11, 30])
    drawn = draw(np.random.default_rng(0), candidates, np.full(40, 50), FRAMES, ALL)
    assert sorted(drawn.order.tolist()) == candidates.tolist()
    assert {len(getattr(drawn, spec.name)) for spec in fields(Draws)} == {4}


def test_draws_keep_their_limits_and_reach_them() -> None:
    lengths = [40, 5, 16, 200] * 500
    drawn = draws_of(ALL, lengths)
    assert np.abs(drawn.gains).max() <= 6
    assert drawn.gains.min() < -5.9
    assert drawn.gains.max() > 5.9
    assert set(drawn.shifts.tolist()) == set(range(-3, 4))
    assert drawn.lengths.min() == round(FRAMES / 1.3)
    assert drawn.lengths.max() == round(FRAMES * 1.3)
    assert 0.4 < (drawn.lengths < FRAMES).mean() + (drawn.lengths == FRAMES).mean() / 2 < 0.6
    spare = np.array(lengths)[drawn.order] - drawn.lengths
    assert ((np.minimum(spare, 0) <= drawn.starts) & (drawn.starts <= np.maximum(spare, 0))).all()
    for end in (np.minimum(spare, 0), np.maximum(spare, 0)):
        assert (drawn.starts == end).any()
    assert drawn.shares.dtype == drawn.gains.dtype == np.float32
    assert drawn.shares.min() >= 0.5
    assert drawn.shares.max() <= 1
    assert drawn.shares.min() < 0.51
    assert drawn.shares.max() > 0.99


def test_partners_are_of_the_same_batch() -> None:
    drawn = draws_of(ALL, [40] * 21)
    for first, n in ((0, 8), (8, 8), (16, 5)):
        assert sorted(drawn.partners[first : first + 8].tolist()) == list(range(n))


def test_masks_are_at_most_as_wide_as_promised_and_come_everywhere() -> None:
    drawn = draws_of(ALL, [40] * 3000)
    assert drawn.masks.shape == (3000, 4, 2)
    for masks, widest, extent in ((drawn.masks[:, :2], 5, FRAMES), (drawn.masks[:, 2:], 5, MELS)):  # 0.08 s: 5 frames
        first, end = masks[..., 0], masks[..., 1]
        assert set((end - first).ravel().tolist()) == set(range(widest + 1))
        assert (first.min(), end.max()) == (0, extent)
    wide = draws_of(replace(PLAIN, time_mask=9, mel_mask=200), [40] * 1000).masks
    assert wide.min() == 0
    assert wide[:, :2].max() == FRAMES
    assert wide[:, 2:].max() == MELS
    alone = draws_of(replace(PLAIN, mel_mask=3), [40] * 50).masks
    assert (alone[:, :2, 0] == alone[:, :2, 1]).all()
    assert (alone[:, 2:, 0] != alone[:, 2:, 1]).any()


# --- what they do ----------------------------------------------------------------------------------


def test_gain_shifts_by_its_decibels_and_stops_at_the_floor() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0, 90, (FRAMES, MELS)).astype(np.float32) for _ in range(3)]
    source = Spectra(Clips.from_arrays([array.ravel() for array in arrays], 8000), MELS)
    crops = cut(source, by_hand(3, gains=np.float32([6, -20, 0])), EVERY, replace(PLAIN, gain=20))
    np.testing.assert_allclose(crops[0], arrays[0] + 6, rtol=1e-6)
    np.testing.assert_allclose(crops[1], np.maximum(arrays[1] - 20, 0), rtol=1e-6)
    assert crops[1].min() == 0
    np.testing.assert_array_equal(crops[2], arrays[2])


def test_a_shift_moves_bands_and_repeats_the_outermost() -> None:
    source, arrays = made_by_hand([FRAMES] * 4)
    crops = cut(source, by_hand(4, shifts=[0, 2, -3, MELS + 5]), EVERY, replace(PLAIN, mel_shift=64))
    np.testing.assert_array_equal(crops[0], arrays[0])
    np.testing.assert_array_equal(crops[1][:, 2:], arrays[1][:, :-2])
    np.testing.assert_array_equal(crops[1][:, :2], arrays[1][:, :1].repeat(2, axis=1))
    np.testing.assert_array_equal(crops[2][:, :-3], arrays[2][:, 3:])
    np.testing.assert_array_equal(crops[2][:, -3:], arrays[2][:, -1:].repeat(3, axis=1))
    np.testing.assert_array_equal(crops[3], arrays[3][:, :1].repeat(MELS, axis=1))


def test_stretched_crops_come_from_the_right_places() -> None:
    source, arrays = made_by_hand([40, 40, 40, 10])
    drawn = by_hand(4, lengths=[FRAMES // 2, 2 * FRAMES, FRAMES, 20], starts=[7, 8, 24, -4])
    crops = cut(source, drawn, EVERY, replace(PLAIN, stretch=1))
    assert crops.shape == (4, FRAMES, MELS)
    np.testing.assert_array_equal(crops[0], arrays[0][7 : 7 + FRAMES // 2].repeat(2, axis=0))  # slower
    np.testing.assert_array_equal(crops[1], arrays[1][8 : 8 + 2 * FRAMES : 2])  # faster
    np.testing.assert_array_equal(crops[2], arrays[2][24:])
    padded = np.pad(arrays[3], ((4, 6), (0, 0)))
    np.testing.assert_array_equal(crops[3], padded[[i * 20 // FRAMES for i in range(FRAMES)]])


def test_masks_take_the_levels_that_each_band_is_filled_with() -> None:
    rng = np.random.default_rng(0)
    crops = rng.uniform(0, 90, (2, FRAMES, MELS)).astype(np.float32)
    before = crops.copy()
    ranges = [[[2, 5], [9, 9], [0, 1], [14, 16]], [[0, 0], [0, 0], [0, 0], [0, 0]]]
    fill = np.arange(MELS) - 3.5
    result = mask(crops, by_hand(2, masks=ranges), EVERY, fill)
    hidden = np.zeros((FRAMES, MELS), dtype=bool)
    hidden[2:5] = hidden[:, 0] = hidden[:, 14:16] = True
    np.testing.assert_array_equal(result[0][hidden], np.broadcast_to(fill, (FRAMES, MELS))[hidden])
    np.testing.assert_array_equal(result[0][~hidden], before[0][~hidden])
    np.testing.assert_array_equal(result[1], before[1])


@pytest.mark.parametrize("shape", [(FRAMES, MELS), (20, 1), (16, 9, 1)])
def test_a_mixture_is_of_a_clip_and_its_partner(shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    drawn = by_hand(5, shares=np.float32([0, 0, 0.75, 0.5, 1]), partners=[0, 0, 1, 2, 0])
    result = mix(inputs, drawn, slice(2, 5))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], 0.75 * inputs[0] + 0.25 * inputs[1], atol=1e-6)
    np.testing.assert_allclose(result[1], 0.5 * inputs[1] + 0.5 * inputs[2], atol=1e-6)
    np.testing.assert_array_equal(result[2], inputs[2])


# --- a whole epoch ---------------------------------------------------------------------------------


def slow_epoch(clips: TrainingClips, config: Config, fold: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of an epoch, clip by clip from the draws."""
    source = spectra(clips.clips, config)
    whole = [source.crops(np.array([i]), np.array([0]), int(n))[0] for i, n in enumerate(source.n_frames)]
    levels = np.concatenate(whole).mean(axis=0)
    rng = np.random.default_rng([config.seed, fold, epoch])
    drawn = draw(rng, np.arange(len(whole)), source.n_frames, config.n_frames, config)
    crops = []
    for k, i in enumerate(drawn.order):
        length, start = int(drawn.lengths[k]), int(drawn.starts[k])
        padded = np.pad(whole[i], ((100, 100), (0, 0)))[100 + start : 100 + start + length]
        crop = np.stack([padded[j * length // FRAMES] for j in range(FRAMES)])
        crop = np.where(crop > 0, np.maximum(crop + drawn.gains[k], 0), 0)  # silence stays silence
        shift = int(drawn.shifts[k])
        crops.append(np.stack([crop[:, min(max(band - shift, 0), MELS - 1)] for band in range(MELS)], axis=1))
    one_hot = np.eye(clips.lessons.n_classes)
    result = []
    for first in range(0, len(crops), config.batch_size):
        inputs, targets = [], []
        for k in range(first, min(first + config.batch_size, len(crops))):
            other, share = first + int(drawn.partners[k]), float(drawn.shares[k])
            mixed = share * crops[k] + (1 - share) * crops[other]
            for j, (low, high) in enumerate(drawn.masks[k]):
                where = (slice(low, high),) if j < 2 else (slice(None), slice(low, high))
                mixed[where] = np.broadcast_to(levels, mixed.shape)[where]
            inputs.append(mixed[..., np.newaxis])
            mine, others = (one_hot[clips.lessons.classes[drawn.order[place]]] for place in (k, other))
            targets.append(share * mine + (1 - share) * others)
        result.append((np.stack(inputs), np.stack(targets)))
    return result


def test_an_epoch_is_what_was_drawn_clip_by_clip() -> None:
    """Inputs and targets are mixed by the same shares, and all comes in the order in which it is described."""
    clips = training_clips(ALL)
    assert clips.n_batches(4) == 3
    for (inputs, targets), (others, other_targets) in zip(
        clips.batches(1, 4), slow_epoch(clips, ALL, 1, 4), strict=True
    ):
        assert inputs.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(inputs, others, atol=1e-3)
        np.testing.assert_allclose(targets, other_targets, atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)


def test_without_augmentation_batches_are_crops() -> None:
    clips = training_clips(PLAIN)
    source = spectra(clips.clips, PLAIN)
    rng = np.random.default_rng([PLAIN.seed, 2, 5])
    order = rng.permutation(21)
    spare = source.n_frames[order] - FRAMES
    starts = rng.integers(np.abs(spare) + 1) * np.sign(spare)
    batches = list(clips.batches(2, 5))
    inputs = np.concatenate([part for part, _ in batches])
    np.testing.assert_array_equal(inputs[..., 0], source.crops(order, starts, FRAMES))
    np.testing.assert_array_equal(np.concatenate([part for _, part in batches]), np.eye(21)[order])


def test_batches_of_waveforms_are_those_of_the_first_version() -> None:
    clips = training_clips(WAVEFORM)
    rng = np.random.default_rng([WAVEFORM.seed, 2, 5])
    order = rng.permutation(21)
    spare = clips.clips.lengths[order] - 20
    starts = rng.integers(np.abs(spare) + 1) * np.sign(spare)
    batches = list(clips.batches(2, 5))
    inputs = np.concatenate([part for part, _ in batches])
    np.testing.assert_array_equal(inputs[..., 0], clips.clips.crops(order, starts, 20))
    np.testing.assert_array_equal(np.concatenate([part for _, part in batches]), np.eye(21)[order])


def test_waveforms_are_mixed_too() -> None:
    config = replace(WAVEFORM, mixup=0.5)
    clips, plain = training_clips(config), training_clips(WAVEFORM)
    for (inputs, targets), (crops, one_hot) in zip(clips.batches(0, 0), plain.batches(0, 0), strict=True):
        shares = targets @ one_hot.T  # how much of each clip of the batch
        assert (shares.diagonal() >= 0.5).all()
        assert (shares.diagonal() < 1).any()
        np.testing.assert_allclose(inputs[..., 0], shares @ crops[..., 0], atol=1e-6)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (1, 3), (5, 9)])
def test_batches_do_not_depend_on_who_makes_them(workers: int, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(training_clips(ALL, 50).batches(3, 2))
    monkeypatch.setattr(batches_module, "WORKERS", workers)
    monkeypatch.setattr(batches_module, "AHEAD", ahead)
    assert same(expected, training_clips(ALL, 50).batches(3, 2))


def test_equal_seed_fold_and_epoch_give_equal_batches_and_others_do_not() -> None:
    clips = training_clips(ALL)
    first = list(clips.batches(1, 2))
    list(clips.batches(1, 0))  # whatever ran before
    assert same(first, clips.batches(1, 2))
    assert not same(first, clips.batches(2, 2))
    assert not same(first, clips.batches(1, 3))
    assert not same(first, training_clips(replace(ALL, seed=7)).batches(1, 2))


def test_the_spectrograms_themselves_are_left_alone() -> None:
    clips = training_clips(ALL)
    source = clips.spectra
    places = np.arange(21), np.zeros(21, int), 50
    before = source.crops(*places)
    list(clips.batches(0, 0))
    np.testing.assert_array_equal(source.crops(*places), before)
