"""Labels and other texts of users as sentences, lists, submissions and figures show them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from fsat.errors import printable
from fsat.reports.plots import FONT, installed_fonts, plot_class_precision, plot_confusion
from fsat.text import named, submitted


@pytest.mark.parametrize(("text", "shown"), [
    ("犬\u3000の声", "犬\u3000の声"), ("a\u00a0b", "a\u00a0b"), ("👩\u200d🚒", "👩\u200d🚒"),
    ("می\u200cخواهم", "می\u200cخواهم"),
    ('C:\\a "b"\n', 'C:\\a "b"\\n'), ("a\u2028b\x1b[2J\u202e\udce9", "a\\u2028b\\x1b[2J\\u202e\\udce9"),
])  # fmt: skip
def test_only_line_ends_and_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


@pytest.mark.parametrize(("label", "name"), [
    ("Bell", "Bell"), ("Bass_drum", "Bass_drum"), ("R/C", "R/C"), ("Dog bark", "'Dog bark'"), ("a,b", "'a,b'"),
    ("cook's bell", '"cook\'s bell"'), ("犬\u3000の声", "'犬\u3000の声'"),
])  # fmt: skip
def test_a_label_in_a_sentence(label: str, name: str) -> None:
    assert named(label) == name


@pytest.mark.parametrize(("label", "word"), [
    ("Bell", "Bell"), ("Dog bark", "Dog_bark"), ("Dog \u00a0 bark", "Dog_bark"), ("犬\u3000の声", "犬_の声"),
    ("a__b", "a__b"),
])  # fmt: skip
def test_a_label_in_a_submission(label: str, word: str) -> None:
    assert submitted(label) == word


def test_figures_take_any_label(tmp_path: Path) -> None:
    labels = [r"$\frac$", "a$b", "_", "犬 の声", "हिन्दी", "العربية", "👩\u200d🚒", "{x}_{y}^", "\\", "%s", "x" * 3000]
    scores, targets = np.random.default_rng(0).random((30, len(labels))), np.arange(30) % len(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for plot in (plot_confusion, plot_class_precision):
            plot(scores, targets, labels, "title", tmp_path / "plot.png")
            assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert installed_fonts([FONT, "no such font"]) == [FONT]
