"""What the page says, as HTML and as a table. Nothing here knows Gradio, the tagger or the server.

Conventions: every text that comes from outside (file names, labels, reasons) is escaped. Scores are shown with three
digits; `<data>` keeps six, as the table that is downloaded does. Times are in seconds.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from fsat.errors import count, printable
from fsat.metrics.segments import Segment
from fsat.tagging.tables import Tags, csv_of

CSV_NAME = "tags.csv"


def one(sound: Tags, seconds: float, pictures: Picture | None, spans: Sequence[Segment] | None) -> str:
    """The answer for one sound.

    Args:
        sound: as tagged.
        seconds: its length.
        pictures: waveform and spectrogram; None where there are none.
        spans: its tags over time; None where it is too short for that.
    """
    if sound.error:
        return _answer(_heading("Not tagged") + problem(sound.fname, sound.error))
    parts = [_heading("Tags"), f"<p class='fsat-file'>{_name(sound.fname)}, {clock(seconds)}</p>", bars(sound)]
    if pictures is not None:
        parts.append(pictures.html(f"Waveform and log-mel spectrogram of {sound.fname}"))
    if spans is not None:
        parts.append(over_time(spans))
    return _answer("".join([*parts, download([sound])]))


def several(sounds: Sequence[Tags]) -> str:
    """The answer for several sounds: a table, and the same to download."""
    failed = sum(bool(sound.error) for sound in sounds)
    summary = f"{count(len(sounds) - failed, 'sound')} tagged" + (f", {failed} could not be" if failed else "")
    rows = "".join(_row(sound) for sound in sounds)
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("File", "Labels and scores"))
    return _answer(
        f"{_heading('Tags')}<p class='fsat-file'>{summary}.</p>{download(sounds)}"
        f"<table class='fsat-table'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def bars(sound: Tags) -> str:
    """The best labels as bars: a table that a screen reader can read, whose bars it leaves out."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(label)}</th>"
        f"<td class='fsat-bar' aria-hidden='true'><span style='width:{100 * score:.1f}%'></span></td>"
        f"<td>{_score(score)}</td></tr>"
        for label, score in zip(sound.labels, sound.scores, strict=True)
    )
    return f"<table class='fsat-bars'><caption>Best labels and their scores, from 0 to 1</caption>{rows}</table>"


def over_time(spans: Sequence[Segment]) -> str:
    """Tags over time as a table."""
    rows = "".join(
        f"<tr><td>{clock(span.start)}</td><td>{clock(span.end)}</td><td>{escape(span.label)}</td>"
        f"<td>{_score(span.score)}</td></tr>"
        for span in spans
    )
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("From", "To", "Label", "Score"))
    return (
        "<div class='fsat-scroll' role='region' aria-label='Tags over time' tabindex='0'>"
        "<table class='fsat-table fsat-times'><caption>Tags over time</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def problem(fname: str, reason: str) -> str:
    """Why a sound could not be tagged."""
    return f"<p class='fsat-problem' role='alert'><strong>{_name(fname)}</strong>: {escape(printable(reason))}</p>"


def notice(text: str) -> str:
    """An answer that is only a sentence."""
    return _answer(f"<p>{escape(text)}</p>")


def download(sounds: Sequence[Tags]) -> str:
    """A link that holds the table which `predict` writes for the same sounds, so that the server need not keep it."""
    data = base64.b64encode(csv_of(sounds).encode()).decode()
    href = f"data:text/csv;charset=utf-8;base64,{data}"
    return f"<p><a class='fsat-download' download='{CSV_NAME}' href='{href}'>Download as CSV</a></p>"


def clock(seconds: float) -> str:
    """A time as people read it: ``0.5 s``, ``9.3 s``, ``1:05.0``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes}:{rest / 10:04.1f}" if minutes else f"{rest / 10:.1f} s"


@dataclass(frozen=True)
class Picture:
    """One picture twice, for a wide window and for a phone's, as PNG."""

    wide: bytes
    narrow: bytes

    def html(self, what: str) -> str:
        """The picture, of which the browser shows the one that fits; `what` is read out in its place."""
        wide, narrow = (f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in (self.wide, self.narrow))
        return (
            f"<picture class='fsat-picture'><source media='(max-width: 640px)' srcset='{narrow}'>"
            f"<img src='{wide}' alt='{escape(printable(what))}'></picture>"
        )


def _row(sound: Tags) -> str:
    cell = (
        f"<td class='fsat-problem'>{escape(printable(sound.error))}</td>"
        if sound.error
        else f"<td>{_pairs(sound)}</td>"
    )
    return f"<tr><th scope='row'>{_name(sound.fname)}</th>{cell}</tr>"


def _pairs(sound: Tags) -> str:
    pairs: Iterable[tuple[str, float]] = zip(sound.labels, sound.scores, strict=True)
    return " ".join(f"<span class='fsat-pair'>{escape(label)} {_score(score)}</span>" for label, score in pairs)


def _score(score: float) -> str:
    return f"<data value='{score:.6f}'>{score:.3f}</data>"


def _name(fname: str) -> str:
    return f"<bdi>{escape(printable(fname))}</bdi>"  # a name's own direction of writing must not turn the sentence


def _heading(text: str) -> str:
    return f"<h2>{text}</h2>"


def _answer(inside: str) -> str:
    """The frame of every answer: a landmark that the keyboard reaches."""
    return f"<section class='fsat-answer' aria-label='Answer' tabindex='0'>{inside}</section>"
