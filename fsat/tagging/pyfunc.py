"""A tagger as MLflow's pyfunc model: rows with the bytes of audio files in, labels and scores out.

Conventions: what is wrong with a parameter raises `ConfigError`; what is wrong with a clip is the ``error`` of its row.
Clips that together last longer than the longest clip allowed are decoded one group after the other, so that memory
stays bounded. MLflow's parameters are numbers, so the threshold of each class is `BY_CLASS` as a ``min_score``.
"""

from __future__ import annotations

import numbers
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fsat.data.audio import LONGEST, TOO_LONG, length_of, sine
from fsat.data.levels import SEPARATOR
from fsat.errors import AudioError, ConfigError, FsatError, printable
from fsat.metrics.class_thresholds import BY_CLASS, PARAMS, TagParams
from fsat.metrics.ranking import top_k
from fsat.tagging.recordings import minima
from fsat.tagging.tagger import Decoded, Tagger

if TYPE_CHECKING:
    import pandas as pd

MAX_TOP_K = 2**31 - 1
"""MLflow's integers have 32 bits. A `top_k` above the number of labels returns all labels."""

cancelled: ContextVar[threading.Event | None] = ContextVar("fsat_cancelled", default=None)
"""Set once the request of this context needs no answer; None outside of a server."""


class RequestCancelled(FsatError):
    """The client has closed the connection, or the server's timeout has passed."""


class PyfuncTagger:
    """A tagger with the interface that MLflow expects of a Python model, for clips of at most `max_seconds`."""

    def __init__(self, tagger: Tagger, max_seconds: float = LONGEST) -> None:
        self.tagger, self.max_seconds = tagger, max_seconds
        self.defaults = TagParams.of(len(tagger.labels), tagger.thresholds is not None)

    def get_raw_model(self) -> Tagger:
        """Return the tagger, for MLflow's ``PyFuncModel.get_raw_model``."""
        return self.tagger

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Tag clips, the bytes of an audio file in each row of the column ``audio``; paths are not opened.

        `params` are ``top_k``, the most labels of a clip, and ``min_score``, the lowest score of a label, where
        `BY_CLASS` is the threshold of each class. Defaults are the best 3, whatever their scores; of a tagger with
        thresholds, all labels that reach theirs.

        Returns:
            per row ``labels`` and ``scores``, lists of the `top_k` best, best first; ``error``: why the clip, or the
            rest of it, could not be tagged, or an empty text; and ``note``: what is odd about it, such as ``silent``.
            The lists are empty if nothing could be heard, or if no score is high enough, which a tagger that may give
            no label to a sound says in its note: ``no label``.

        Raises:
            ConfigError: a parameter is unknown or out of bounds.
            RequestCancelled: the answer is no longer needed.
        """
        import pandas as pd

        asked = tag_params(params, self.defaults)
        own = self.tagger.thresholds if asked.min_score == BY_CLASS else None
        minimum = minima(asked.min_score, len(self.tagger.labels)) if own is None else own
        labels, sources, rows = self.tagger.labels, model_input["audio"].tolist(), []
        for group in groups(sources, self.max_seconds):
            event = cancelled.get()
            if event is not None and event.is_set():
                raise RequestCancelled("the request was cancelled before all of its clips were tagged")
            for clip, row, error in self._scored(sources[group]):
                ranking = top_k(row[None], asked.top_k)[0]
                best = [j for j in ranking if row[j] >= minimum[j]]  # none if there are no scores
                notes = SEPARATOR.join(self.tagger.notes_of(clip, row, best))
                rows.append(([labels[j] for j in best], [float(row[j]) for j in best], error, notes))
        return pd.DataFrame(rows, columns=["labels", "scores", "error", "note"])

    def _scored(self, sources: Sequence[Any]) -> list[tuple[Decoded, Any, str]]:
        """Return clips with their scores and errors; those that are longer than their headers say, one by one."""
        limits = [min(_seconds(source) + 1, self.max_seconds) for source in sources]
        clips = self._decode(sources, limits)
        scored = list(zip(clips, *self.tagger.scores_of(clips), strict=True))
        for i, (limit, clip) in enumerate(zip(limits, clips, strict=True)):
            if limit < self.max_seconds and isinstance(clip, AudioError) and str(clip).startswith(TOO_LONG):
                alone = self._decode(sources[i : i + 1], [self.max_seconds])
                scored[i] = next(zip(alone, *self.tagger.scores_of(alone), strict=True))
        return scored

    def _decode(self, sources: Sequence[Any], limits: Sequence[float]) -> list[Decoded]:
        """Decode clips given as bytes, and only these: a client must not have a path opened."""
        usable = [i for i, source in enumerate(sources) if isinstance(source, bytes | bytearray | memoryview)]
        audio, seconds = [sources[i] for i in usable], [limits[i] for i in usable]
        decoded = dict(zip(usable, self.tagger.decode_all(audio, seconds), strict=True))
        wrong = "audio is {}: expected the bytes of an audio file"
        return [decoded.get(i, AudioError(wrong.format(type(source).__name__))) for i, source in enumerate(sources)]

    def warm_up(self) -> None:
        """Import and compile what the first clips would otherwise wait for."""
        import pandas  # noqa: F401  (used by `predict`)

        configs = [member.config for member in self.tagger.members]
        padded = min(config.audio_duration for config in configs) / 2
        all_crops = max(max(config.audio_duration, config.eval_duration) for config in configs) + 1
        for seconds in (padded, all_crops):
            self.tagger.scores([sine(seconds)])  # one clip each: oneDNN compiles code for every number of crops


def tag_params(params: Mapping[str, Any] | None, defaults: TagParams = PARAMS) -> TagParams:
    """Return the parameters of a call; raise `ConfigError` if one is unknown or out of bounds.

    `BY_CLASS` is allowed where it is the default.
    """
    params = {} if params is None else params
    if not isinstance(params, Mapping):
        raise ConfigError(f'params is {json_type(params)}: expected an object, such as {{"top_k": {PARAMS.top_k}}}')
    if unknown := [name for name in params if name not in ("top_k", "min_score")]:
        raise ConfigError(f"unknown parameter {quoted(str(unknown[0]))}: expected top_k or min_score")
    n_labels, min_score = (params.get(name, default) for name, default in defaults._asdict().items())
    if not _is_number(n_labels, numbers.Integral, 1, MAX_TOP_K):
        raise ConfigError(f"top_k={_shown(n_labels)}: expected a whole number from 1 to {MAX_TOP_K}")
    by_class = min_score == BY_CLASS == defaults.min_score
    if not _is_number(min_score, numbers.Real, 0, 1) and not by_class:
        own = f", or {BY_CLASS:g} for the threshold of each class" if defaults.min_score == BY_CLASS else ""
        raise ConfigError(f"min_score={_shown(min_score)}: expected a number from 0 to 1{own}")
    return TagParams(int(n_labels), float(min_score))


def _is_number(value: Any, kind: Any, least: int, most: int) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most


def groups(sources: Sequence[Any], max_seconds: float) -> Iterator[slice]:
    """Split audio files, as bytes, into groups that last at most `max_seconds` by their headers.

    No clip is decoded beyond `max_seconds`. Anything but audio counts as 0 s.
    """
    start, total = 0, 0.0
    for i, source in enumerate(sources):
        seconds = min(_seconds(source), max_seconds)
        if i > start and total + seconds > max_seconds:
            yield slice(start, i)
            start, total = i, 0.0
        total += seconds
    if len(sources) > start:
        yield slice(start, len(sources))


def _seconds(source: Any) -> float:
    """Return the length of a clip by its header in seconds; 0 if it is unreadable, infinite if unknown."""
    try:
        return length_of(source)
    except (AudioError, TypeError):
        return 0.0


def json_type(value: object) -> str:
    """Return the type of a value in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, numbers.Number) else type(value).__name__)


def quoted(text: str) -> str:
    """Return at most 32 characters of a text from a request, in quotes."""
    return repr(printable(text[:32] + ("..." if len(text) > 32 else "")))


def _shown(value: object) -> str:
    """Return a parameter as an error shows it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if isinstance(value, float) or abs(value) < 10**15 else "a huge number"
    return quoted(value) if isinstance(value, str) else json_type(value)
