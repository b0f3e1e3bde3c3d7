"""Audio files of every format that fsat reads, as bytes, and what recorders, uploads and file systems make of them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import soundfile as sf

SECONDS, RATE = 4.0, 48000


def noise(seconds: float = SECONDS, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Noise that ends with a tone, float32 (n, channels)."""
    samples = 0.2 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels))
    return samples.clip(-0.9, 0.9).astype(np.float32)


def by_libsndfile(form: str, subtype: str | None = None, samples: np.ndarray | None = None, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    samples = noise() if samples is None else samples
    with sf.SoundFile(buffer, "w", rate, samples.shape[1], format=form, subtype=subtype) as file:
        for first in range(0, len(samples), 1 << 14):  # one long write of OGG crashes libsndfile
            file.write(samples[first : first + (1 << 14)])
    return buffer.getvalue()


def by_ffmpeg(form: str, codec: str, rate: int = RATE, seconds: float = SECONDS, **options: str) -> bytes:
    import av

    samples = noise(seconds, rate)
    with tempfile.NamedTemporaryFile() as file:  # the index of an MP4 is moved in a file only
        with av.open(file.name, "w", format=form, options=options) as container:
            stream: Any = container.add_stream(codec, rate=rate, layout="mono")
            stream.codec_context.open()
            size = stream.codec_context.frame_size or 1024
            resampler = av.AudioResampler(stream.codec_context.format, "mono", rate, size)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", "mono")
            frame.sample_rate, frame.pts = rate, 0
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        return file.read()


MAKERS: dict[str, Callable[[], bytes]] = {
    "wav": partial(by_libsndfile, "WAV", "PCM_16"),
    "wav24": partial(by_libsndfile, "WAV", "PCM_24"),
    "wav_adpcm": partial(by_libsndfile, "WAV", "IMA_ADPCM"),
    "wav_float": partial(by_libsndfile, "WAV", "FLOAT"),
    "wavex": partial(by_libsndfile, "WAVEX", "PCM_16"),
    "rf64": partial(by_libsndfile, "RF64", "PCM_16"),
    "w64": partial(by_libsndfile, "W64", "PCM_16"),
    "aiff": partial(by_libsndfile, "AIFF", "PCM_16"),
    "au": partial(by_libsndfile, "AU", "PCM_16"),
    "caf": partial(by_libsndfile, "CAF", "PCM_16"),
    "svx": partial(by_libsndfile, "SVX", "PCM_16"),
    "nist": partial(by_libsndfile, "NIST", "PCM_16"),
    "flac": partial(by_libsndfile, "FLAC", "PCM_16"),
    "ogg": partial(by_libsndfile, "OGG", "VORBIS"),
    "opus": partial(by_libsndfile, "OGG", "OPUS"),
    "mp3": partial(by_libsndfile, "MP3", "MPEG_LAYER_III"),
    "m4a": partial(by_ffmpeg, "mp4", "aac"),
    "m4a_index_first": partial(by_ffmpeg, "mp4", "aac", movflags="+faststart"),
    "alac": partial(by_ffmpeg, "ipod", "alac"),
    "webm": partial(by_ffmpeg, "webm", "libopus"),
    "mka": partial(by_ffmpeg, "matroska", "flac"),
    "aac": partial(by_ffmpeg, "adts", "aac"),
    "wv": partial(by_ffmpeg, "wv", "wavpack"),
    "tta": partial(by_ffmpeg, "tta", "tta"),
    "flv": partial(by_ffmpeg, "flv", "aac", 44100),
    "mpegts": partial(by_ffmpeg, "mpegts", "aac"),
}
"""For each format, what makes the bytes of `SECONDS` of noise."""

NEED_FFMPEG = frozenset(list(MAKERS)[list(MAKERS).index("m4a") :])


@cache
def make(name: str) -> bytes:
    """Return the bytes of a format of `MAKERS`."""
    return MAKERS[name]()
