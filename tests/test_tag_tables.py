"""Tables of tags in every form and format, as other programs read them and as fsat does; tables for Raven."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from helpers import error_line, tone, write_wav

from fsat.data.annotations import read_annotations
from fsat.errors import ConfigError, DataError
from fsat.tagging.input_files import read_input
from fsat.tagging.read_tables import Tag, read_tag_table
from fsat.tagging.tables import Form, Span, Tags, check_suffix, guard, unguard, write_tags
from fsat.tagging.tracks import LabelTracks, RavenTables

CLIPS = [
    Tags("a,b.wav", ["Gans, graue", "Łódź 🚤", "=1+1"], [0.75, 0.125, 0.0625], note="clipped"),
    Tags("=cmd.wav", ["-50 Hz"], [0.5], "cut off after 1.00 s"),
    Tags("'@home.wav", [], [], "empty file"),
    Tags("silent.wav", [], [], note="silent"),
]
SPANS = [
    Span("day/1.wav", 0.0, 2.5, "Gans, graue", 0.75),
    Span("day/1.wav", 2.5, 5.0, "", None, note="silent"),
    Span("day/1.wav", 5.0, 61.25, "=1+1", 0.25),
    Span("day/1.wav", None, None, "", None, "cut off after 61.25 s", "DC offset"),
]
FORMATS = ("csv", "tsv", "jsonl", "parquet")


def cells(path: Path, **options: str) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines(), **options))


def tags_in(rows: list[Tags] | list[Span]) -> list[Tag]:
    if isinstance(rows[0], Span):
        return [Tag(row.fname, row.start, row.end, row.label, row.score) for row in rows if row.label]
    return [Tag(row.fname, None, None, *tag) for row in rows for tag in zip(row.labels, row.scores, strict=True)]


def test_a_clip_has_one_value_a_cell(tmp_path: Path) -> None:
    write_tags(tmp_path / "t.csv", CLIPS, Form(4))
    header, *rows = cells(tmp_path / "t.csv")
    assert ",".join(header) == "fname,label,score,label_2,score_2,label_3,score_3,label_4,score_4,error,note"
    best = ["Gans, graue", "0.750000", "Łódź 🚤", "0.125000", "=1+1", "0.062500"]
    assert rows[0] == ["a,b.wav", *best, "", "", "", "clipped"]
    assert rows[1] == ["=cmd.wav", "-50 Hz", "0.500000", *[""] * 6, "cut off after 1.00 s", ""]
    assert rows[2] == ["'@home.wav", *[""] * 8, "empty file", ""]
    write_tags(tmp_path / "t.tsv", CLIPS, Form(4))
    assert cells(tmp_path / "t.tsv", delimiter="\t") == [header, *rows]
    frame = pd.read_csv(tmp_path / "t.tsv", sep="\t")
    assert (frame["score"].dtype, frame["score_4"].isna().all()) == ("float64", True)


def test_the_long_form_has_a_row_for_each_label(tmp_path: Path) -> None:
    for suffix in FORMATS:
        write_tags(tmp_path / f"t.{suffix}", CLIPS, Form(3, long=True))
    header, *rows = cells(tmp_path / "t.csv")
    assert header == ["fname", "label", "score", "rank", "error", "note"]
    assert rows[:4] == [
        ["a,b.wav", "Gans, graue", "0.750000", "1", "", "clipped"],
        ["a,b.wav", "Łódź 🚤", "0.125000", "2", "", "clipped"],
        ["a,b.wav", "=1+1", "0.062500", "3", "", "clipped"],
        ["=cmd.wav", "-50 Hz", "0.500000", "1", "cut off after 1.00 s", ""],
    ]
    assert rows[4:] == [["'@home.wav", "", "", "", "empty file", ""], ["silent.wav", "", "", "", "", "silent"]]
    assert cells(tmp_path / "t.tsv", delimiter="\t") == [header, *rows]
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [header] * 6
    assert (lines[2]["rank"], lines[4]["rank"], lines[4]["score"], lines[4]["label"]) == (3, None, None, "")
    assert pd.read_parquet(tmp_path / "t.parquet").astype(object).where(lambda frame: frame.notna(), None).to_dict(
        "records"
    ) == lines  # fmt: skip


def test_recordings_have_the_same_rows_in_the_long_form(tmp_path: Path) -> None:
    for suffix in FORMATS:
        for long in (False, True):
            write_tags(tmp_path / f"{long}.{suffix}", SPANS, Form(1, over_time=True, long=long))
        assert (tmp_path / f"True.{suffix}").read_bytes() == (tmp_path / f"False.{suffix}").read_bytes()
    assert cells(tmp_path / "True.csv")[1] == ["day/1.wav", "0.000", "2.500", "Gans, graue", "0.750000", "", ""]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("excel", [False, True])
def test_tables_are_read_back(suffix: str, excel: bool, tmp_path: Path) -> None:
    if excel and suffix not in ("csv", "tsv"):
        message = error_line(ConfigError, check_suffix, tmp_path / f"t.{suffix}", excel)
        assert "expected a name that ends in .csv or .tsv with excel=true" in message
        return
    path = tmp_path / f"t.{suffix}"
    for rows, form in ((CLIPS, Form(3)), (CLIPS, Form(3, long=True)), (SPANS, Form(1, over_time=True))):
        write_tags(path, rows, Form(form.n_tags, form.over_time, form.long, excel))
        assert list(read_tag_table(path)) == tags_in(rows)
        if suffix in ("csv", "tsv"):
            assert list(dict.fromkeys(read_input(str(path)).names)) == list(dict.fromkeys(row.fname for row in rows))


def test_a_table_for_excel_shows_all_letters_and_computes_nothing(tmp_path: Path) -> None:
    write_tags(tmp_path / "t.csv", CLIPS, Form(3, excel=True))
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbffname,label,score,")
    frame = pd.read_csv(tmp_path / "t.csv", encoding="utf-8-sig", keep_default_na=False)
    assert frame["fname"].tolist() == ["a,b.wav", "'=cmd.wav", "''@home.wav", "silent.wav"]
    assert frame["label_3"][0] == "'=1+1"
    assert frame["label"][1] == "'-50 Hz"
    assert frame["label_2"][0] == "Łódź 🚤"
    for text in ("", "a", "'", "'a", "=", "'=", "''=x", "+1", "-", "@x", "\t=", "＝1", "a=b", "'quoted'"):
        assert unguard(guard(text)) == text
        assert guard(text)[:1] not in ("=", "+", "-", "@", "\t", "＝")
    plain = tmp_path / "plain.csv"
    write_tags(plain, [Tags("'=a.wav", ["'-b"], [0.5])], Form(1))  # without the mark, an apostrophe is one
    assert list(read_input(str(plain)).names) == ["'=a.wav"]
    assert [tag.label for tag in read_tag_table(plain)] == ["'-b"]


def test_a_spreadsheet_may_save_it_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for rows, form in ((CLIPS, Form(3, excel=True)), (SPANS, Form(1, over_time=True, excel=True))):
        write_tags(path, rows, form)
        header, *lines = cells(path)
        with open(path, "w", encoding="utf-8", newline="") as file:
            commas = ([re.sub(r"^(\d+)\.(\d+)$", r"\1,\2", cell) for cell in line] for line in lines)
            csv.writer(file, delimiter=";").writerows([header, *commas])
        assert list(read_tag_table(path)) == tags_in(rows)
        assert list(dict.fromkeys(read_input(str(path)).names)) == list(dict.fromkeys(row.fname for row in rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "fname:label:score\n", "got columns 'fname:label:score', no fname; expected a table that"),
        ("t.csv", "fname;label\na;b\n", "got columns 'fname,label', no score"),
        ("t.csv", "fname,label\na,b\n", "no score"),
        ("t.csv", "", "got columns '', no fname"),
        ("t.csv", "fname,label,score\na,b,0.5\nc,d\n", "line 3: 2 cells in a table of 3 columns; fix that line"),
        ("t.csv", 'fname,label,score\na,b,"0,973"\n', "line 2: score '0,973': expected a number"),
        ("t.csv", "fname,start,end,label,score\na,3,2,b,1\n", "line 2: start 3 and end 2: expected seconds"),
        ("t.csv", "fname,start,label,score\na,3,b,1\n", "line 2: no column 'end'"),
        ("t.csv", "fname,start,end,label,score\na,,2,b,1\n", "line 2: start '': expected a number"),
        ("t.tsv", 'fname\tlabel\tscore\n"a"b\tc\t1\n', "line 2: not CSV"),
        ("t.csv", "fname,label,score\nGänse,b,1\n".encode("cp1252"), "wrong encoding: byte 0xe4 is not UTF-8"),
        ("t.jsonl", '{"fname": "a", "label": "b", "score": 1}\n[]\n', "line 2: not a JSON object"),
        ("t.jsonl", '{"fname": "a", "labels": ["b"], "scores": []}\n', "line 1: zip() argument 2 is shorter"),
        ("t.jsonl", "{\n", "line 1: not a JSON object"),
        ("t.jsonl", '{"label": "b", "score": 1}\n', "line 1: no column 'fname'"),
        ("t.parquet", "PAR1", "cannot be read"),
        ("t.xlsx", "", "whose name ends in .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_other_tables_are_one_line(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    line = error_line(DataError, lambda: list(read_tag_table(tmp_path / name)))
    assert message in line
    assert line.startswith(str(tmp_path / name))


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    for suffix in FORMATS:
        assert "No such file" in error_line(DataError, lambda: list(read_tag_table(tmp_path / f"t.{suffix}")))  # noqa: B023


def test_raven_opens_the_table_of_a_recording(tmp_path: Path) -> None:
    """The columns, their names and their order are those of BirdNET-Analyzer's tables, which Raven Pro opens."""
    root, folder = tmp_path / "root", tmp_path / "tables"
    for name, rate in (("day/1.wav", 8000), ("day/1.flac", 96000), ("quiet.wav", 8000)):
        write_wav(root / name, tone(300, 0.1, rate), rate)
    tables = RavenTables(folder, root, highest_rate=44100)
    spans = [*SPANS, Span("day/1.wav", 70.0, 71.0, "two\tcells\nor lines", 1.0)]
    for name in ("day/1.wav", "day/1.flac", "DAY/1.wav", "quiet.wav", "../gone.wav", "."):
        tables.write(name, [Span(name, None, None, "", None, "empty file")] if name == "quiet.wav" else spans)
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt"))
    names = ["DAY/1 (3)", "_", "day/1 (2)", "day/1", "gone", "quiet"]
    assert written == [f"{name}.Table.1.selections.txt" for name in names]
    assert tables.warning().startswith(
        "warning: 2 Raven tables with a number, as another has the same name; first that"
    )
    header, *rows = [line.split("\t") for line in (folder / written[3]).read_text(encoding="utf-8").splitlines()]
    assert header == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
        "Begin File", "Annotation", "Score", "Begin Path", "File Offset (s)",
    ]  # fmt: skip
    box, path = ["0.0", "4000.0", "1.wav"], str(root / "day/1.wav")
    assert rows == [
        ["1", "Spectrogram 1", "1", "0.000000", "2.500000", *box, "Gans, graue", "0.750000", path, "0.000000"],
        ["2", "Spectrogram 1", "1", "5.000000", "61.250000", *box, "=1+1", "0.250000", path, "5.000000"],
        ["3", "Spectrogram 1", "1", "70.000000", "71.000000", *box, "two cells or lines", "1.000000", path,
         "70.000000"],
    ]  # fmt: skip
    highest = [pd.read_csv(folder / name, sep="\t")["High Freq (Hz)"].tolist()[:1] for name in written]
    assert highest == [[22050.0]] * 3 + [[4000.0], [22050.0], []]  # at most the tagger's, also if a file is gone


def test_tables_and_tracks_of_recordings_are_read_as_annotations(tmp_path: Path) -> None:
    spans = [Span("a.wav", float(i), i + 1.0, label, 0.5) for i, label in enumerate(['"Dog" bark', '"x', "=1+1", "NA"])]
    write_wav(tmp_path / "a.wav", tone(300, 0.1, 8000), 8000)
    for name, files in (
        ("raven", RavenTables(tmp_path / "raven", tmp_path, 8000)),
        ("tracks", LabelTracks(tmp_path / "tracks")),
    ):
        files.write("a.wav", spans)
        files.write("silent.wav", [])
        annotated, problems, warnings = read_annotations(["a.wav", "silent.wav"], tmp_path, tmp_path / name)
        assert not [*problems, *warnings]
        events = [(event.start, event.end, event.label) for event in annotated["a.wav"].events]
        assert events == [(span.start, span.end, span.label) for span in spans]
        assert annotated["silent.wav"].events == []


def test_a_label_with_a_line_end_stays_on_one_line(tmp_path: Path) -> None:
    LabelTracks(tmp_path).write("a.wav", [Span("a.wav", 0.0, 1.0, "two\tcells\nor lines", 0.5)])
    assert (tmp_path / "a.wav.txt").read_text() == "0.000000\t1.000000\ttwo cells or lines\n"
