"""Labels of a table: any text; which look alike or are lists of labels, and what is said."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from helpers import append_line, error_line, make_dataset, read_csv, tone, write_csv, write_wav

from fsat.config import Config
from fsat.data.dataset import load_dataset
from fsat.data.label_checks import label_faults, label_warnings
from fsat.data.manifest import read_manifest
from fsat.errors import DataError, Problem, listed

CONFIG = Config.resolve({"sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32"}, "quick")
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Grün") for form in ("NFC", "NFD"))


def faults(*labels: str) -> dict[str, str]:
    return label_faults(labels, range(2, len(labels) + 2))


@pytest.mark.parametrize(("usual", "rarer", "difference"), [
    (COMPOSED, DECOMPOSED, "only in the Unicode normal form; write all labels in one form, such as NFC"),
    (DECOMPOSED, COMPOSED, "only in the Unicode normal form"),
    ("Dog", "dog", "only in letter case; write 'Dog' in all rows"),
    ("Straße", "STRASSE", "only in letter case"),
    ("Пёс", "пёс", "only in letter case"),
    ("Dog", "Dog\u200b", "only in invisible characters; remove them"),
    ("Dog", "\ufeffDog", "only in invisible characters"),
    ("Fire\u00ad_alarm", "Fire_alarm", "only in invisible characters"),
    ("Bass_drum", "Bass__drum", "only in spaces and underscores; write 'Bass_drum' in all rows"),
    ("Bass_drum", "Bass drum", "only in spaces and underscores"),
    ("Bass_drum", " Bass_drum", "only in spaces and underscores"),
    ("Bass_drum", "Bass\u00a0drum", "only in spaces and underscores"),
    ("Dog", "D\u043eg", "only in characters that look the same"),
    ("Hi-hat", "Hi\u2011hat", "only in characters that look the same"),
    ("Dog", "Ｄｏｇ", "only in characters that look the same"),
    ("Dog", "dog\u200b", "only in characters that look the same"),
])  # fmt: skip
def test_both_spellings_are_named_in_the_rows_of_the_rarer_one(usual: str, rarer: str, difference: str) -> None:
    ((label, reason),) = faults("Cat", usual, rarer, usual).items()
    assert label == rarer
    shown = [(repr(text), ascii(text)) for text in (rarer, usual)]
    assert any(reason.startswith(f"the label {text} (1 clip, first in line 4) differs from ") for text in shown[0])
    assert any(f" differs from {text} (2 clips, first in line 3) only in " in reason for text in shown[1])
    assert difference in reason
    assert reason.isprintable()


def warnings(*labels: str) -> list[str]:
    return label_warnings(labels, range(2, len(labels) + 2))


ANY_TEXT = (
    DECOMPOSED, "Dog\u200b", "CAT", "R&B", "C++", "C", "Hi-hat", "Hi_hat", "none", "a,b", "x/y", "_", "Dog bark",
    "Chirp, tweet", "R/C car", "犬 の声", "鳥\u3000の声", "Żaba", "$x^2$ | `a`", '<b>bold</b> & "q"', "12", "=1+1",
    "naïve café", "👩\u200d🚒", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "می\u200cخواهم", "Owl, cuckoo", "x" * 5000,
)  # fmt: skip


def test_labels_that_are_alone_or_differ_are_fine() -> None:
    assert faults(*ANY_TEXT) == {}
    assert warnings(*ANY_TEXT) == []
    assert faults("Dog", "\u200b") == {"\u200b": "the label '\\u200b' has only invisible characters"}


@pytest.mark.parametrize(("cell", "n"), [
    ("Dog,Cat", 2), ("Dog;Cat", 2), ("Dog|Cat", 2), ("Dog/Cat", 2), ("Dog + Cat", 2), ("cat&dog", 2), ("Dog、Cat", 2),
    ("['Dog', 'Cat']", 2), ("Dog, , Cat ,", 2), ("Cat;Chirp, tweet", 2), ("Chirp, tweet, Dog; Cat", 3),
    ("(big) Bear/Dog", 2), ("Dog, Guinea pig", 2),
])  # fmt: skip
def test_several_labels_in_a_cell(cell: str, n: int) -> None:
    labels = "Dog", cell, "Cat", "Dog", "Chirp, tweet", "(big) Bear", "Guinea pig"
    ((label, reason),) = faults(*labels).items()
    assert label == cell
    assert reason.startswith(f"the label {cell!r} names {n}, and a clip takes one label (")
    advice = "use task=multi" if set(cell) & set(",;|") else "separate them by commas and use task=multi"
    assert reason.endswith((f"clips): keep one, or {advice}", f"clip): keep one, or {advice}"))
    assert warnings(*labels) == []


@pytest.mark.parametrize(("cell", "words"), [
    ("Dog, Bird", "'Dog' is a label"), ("Bird,Dog", "'Dog' is a label"), ("a+Dog|cat", "'Dog' and 'Cat' are labels"),
    ("Chirp, tweet; Bird", "'Chirp, tweet' is a label"), ("Dog Cat", "'Dog' and 'Cat' are labels"),
    ("dog\u3000guinea pig", "'Dog' and 'Guinea pig' are labels"),
])  # fmt: skip
def test_a_label_with_other_labels_in_it_is_read_as_one_with_a_word(cell: str, words: str) -> None:
    labels = "Dog", cell, "Cat", cell, "Chirp, tweet", "Guinea pig"
    assert faults(*labels) == {}
    advice = "where a clip has several, keep one, or use task=multi"
    assert warnings(*labels) == [
        f"read as one label: {cell!r} (2 clips, first in line 3), though {words} of other clips: {advice}"
    ]


def test_words_of_a_label_that_are_not_all_labels_are_text() -> None:
    labels = "drum", "Bass drum", "Dog", "Dog bark", "Dog,"
    assert faults(*labels) == {}
    assert warnings(*labels) == []


def test_a_few_labels_are_named_in_a_warning() -> None:
    (line,) = warnings("Dog", *(f"Dog, {i}" for i in range(9)), "Dog/Dog")
    assert line.count("first in line") == 3
    assert "; and 6 other labels like these: " in line
    assert "Dog/Dog" not in line  # that is a fault


@pytest.mark.parametrize(("label", "what"), [
    ("Dog\nbark", "a line break"), ("Dog\r\nbark", "a line break"), ("Dog\u2028bark", "a line break"),
    ("Dog\x0bbark", "a line break"), ("Dog\tbark", "a tab"), ("Dog\x07", r"the control character '\x07'"),
    ("Caf\udce9", "bytes that are not UTF-8"),
])  # fmt: skip
def test_a_label_is_one_line_of_text(label: str, what: str) -> None:
    reason = f"the label {label!r} has {what}: expected one line of text"
    assert faults("Cat", label) == {label: reason}
    assert reason.isprintable()
    first, second = (Problem("train.csv", line, "a.wav", reason) for line in (2, 3))
    assert listed([first, second]) == [f"{first}; 1 more clip with it"]


def test_white_space_around_a_label() -> None:
    assert faults("Cat", " Dog") == {" Dog": "the label ' Dog' has white space around it: remove it"}


@pytest.mark.parametrize("label", ["None", "NaN", "nan", "NA", "N/A", "<NA>"])
def test_missing_labels(label: str) -> None:
    assert faults(label, "none") == {label: f"the label is {label}: the clip has no label"}


def test_a_table_with_labels_that_look_alike(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", test_clips=0)
    lines = []
    for i, label in enumerate(["bell", "bell", "Bell;Flute", "Cello\u200b"]):
        write_wav(folder / "audio_train" / f"new{i}.wav", tone(500 + i, 0.3, 8000))
        lines.append(append_line(folder / "train.csv", f"new{i}.wav,{label},1"))
    with pytest.raises(DataError) as caught:
        read_manifest(folder, "error", CONFIG)
    assert [problem.row for problem in caught.value.problems] == lines
    alike, several, invisible = listed(caught.value.problems)
    assert alike.startswith(
        "train.csv:20: new0.wav: the label 'bell' (2 clips, first in line 20) differs from 'Bell' (6"
    )
    assert alike.endswith("; 1 more clip with it")
    assert "names 2, and a clip takes one label" in several
    assert "differs from 'Cello' (6 clips, first in line 3) only in invisible characters" in invisible
    manifest = read_manifest(folder, "exclude", CONFIG)
    assert manifest.labels == ["Bell", "Cello", "Flute"]
    assert len(manifest.train) == 18


@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_a_dataset_of_one_label_is_not_trained_on(tmp_path: Path, on_bad_clip: str) -> None:
    folder = make_dataset(tmp_path / "data", test_clips=0)
    rows = [[row["fname"], "audio", "1"] for row in read_csv(folder / "train.csv")]
    write_csv(folder / "train.csv", ["fname", "label", "manually_verified"], rows)
    message = error_line(DataError, load_dataset, folder, CONFIG, on_bad_clip)
    assert message.startswith(f"{folder}: the only label of 18 training clips is audio, and a tagger needs two or more")
    assert "data_dir" in message
    assert read_manifest(folder).labels == ["audio"]


def test_labels_that_share_parts_are_read_as_one_with_a_word() -> None:
    labels = ["Dog,Rain", "Dog,Owl", "Owl,Rain", "Owl, eastern", "Owl, western"]
    (warning,) = label_warnings(labels, [2, 3, 4, 5, 6])
    assert "'Dog,Rain' (1 clip, first in line 2), though 'Dog' is a part of other labels" in warning
    assert "eastern" not in warning
