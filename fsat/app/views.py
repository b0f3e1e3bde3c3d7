"""The page's answers as HTML, independent of Gradio, the tagger and the server.

Conventions: jinja2 escapes every text (file names, labels, errors). Scores are shown with three digits; ``<data>``
holds six, as the downloaded table does. Times are in seconds.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment

from fsat.errors import count, printable
from fsat.metrics.segments import Segment
from fsat.tagging.tables import Tags, csv_of

TEMPLATE = """
{%- macro score(value) %}<data value="{{ '%.6f' % value }}">{{ '%.3f' % value }}</data>{% endmacro %}
{%- macro name(sound) %}<bdi>{{ sound.fname | printable }}</bdi>{% endmacro %}
{%- macro download() %}
<p><a class="fsat-download" download="tags.csv" href="data:text/csv;charset=utf-8;base64,{{ csv | base64 }}">
Download as CSV</a></p>
{% endmacro -%}

<section class="fsat-answer" aria-label="Answer" tabindex="0">
{% if message %}
<p>{{ message }}</p>
{% elif sounds | length > 1 %}
<h2>Tags</h2>
<p class="fsat-file">{{ summary }}.</p>
{{ download() }}
<table class="fsat-table">
<thead><tr><th scope="col">File</th><th scope="col">Labels and scores</th></tr></thead>
<tbody>
{% for sound in sounds %}
<tr><th scope="row">{{ name(sound) }}</th>
{%- if sound.error %}<td class="fsat-problem">{{ sound.error | printable }}</td>
{%- else %}<td>
{%- for label, value in sound.labels | zip(sound.scores) %}
<span class="fsat-pair">{{ label }} {{ score(value) }}</span> {% endfor %}</td>
{%- endif %}</tr>
{% endfor %}
</tbody></table>
{% elif sounds[0].error %}
<h2>Not tagged</h2>
<p class="fsat-problem" role="alert"><strong>{{ name(sounds[0]) }}</strong>: {{ sounds[0].error | printable }}</p>
{% else %}
<h2>Tags</h2>
<p class="fsat-file">{{ name(sounds[0]) }}, {{ seconds | clock }}</p>
<table class="fsat-bars"><caption>Best labels and their scores, from 0 to 1</caption>
{% for label, value in sounds[0].labels | zip(sounds[0].scores) %}
<tr><th scope="row">{{ label }}</th>
<td class="fsat-bar" aria-hidden="true"><span style="width:{{ '%.1f' % (100 * value) }}%"></span></td>
<td>{{ score(value) }}</td></tr>
{% endfor %}
</table>
{% if picture %}
<picture class="fsat-picture">
<source media="(max-width: 640px)" srcset="data:image/png;base64,{{ picture.narrow | base64 }}">
<img src="data:image/png;base64,{{ picture.wide | base64 }}"
 alt="Waveform and log-mel spectrogram of {{ sounds[0].fname | printable }}">
</picture>
{% endif %}
{% if spans is not none %}
<div class="fsat-scroll" role="region" aria-label="Tags over time" tabindex="0">
<table class="fsat-table fsat-times"><caption>Tags over time</caption>
<thead><tr>{% for name in ("From", "To", "Label", "Score") %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for span in spans %}
<tr><td>{{ span.start | clock }}</td><td>{{ span.end | clock }}</td><td>{{ span.label }}</td>
<td>{{ score(span.score) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{{ download() }}
{% endif %}
</section>
"""


class Picture(NamedTuple):
    """A picture as PNG, for a wide window and for a phone; the browser shows the one that fits."""

    wide: bytes
    narrow: bytes


def message(text: str) -> str:
    """Return an answer that is one sentence."""
    return _template.render(message=text)


def answer(
    sounds: Sequence[Tags],
    seconds: float = 0.0,
    picture: Picture | None = None,
    spans: Sequence[Segment] | None = None,
) -> str:
    """Return the answer: a table of several sounds, or length, picture and tags over time (if it is long) of one."""
    n_failed = sum(bool(sound.error) for sound in sounds)
    summary = f"{count(len(sounds) - n_failed, 'sound')} tagged" + (f", {n_failed} could not be" if n_failed else "")
    return _template.render(
        sounds=sounds, summary=summary, csv=csv_of(sounds).encode(), seconds=seconds, picture=picture, spans=spans
    )


def clock(seconds: float) -> str:
    """Return a time as ``0.5 s``, ``9.3 s`` or ``1:05.0``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes}:{tenths / 10:04.1f}" if minutes else f"{tenths / 10:.1f} s"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_environment = Environment(autoescape=True, trim_blocks=True)
_environment.filters |= {"printable": printable, "base64": _base64, "clock": clock, "zip": zip}
_template = _environment.from_string(TEMPLATE)
