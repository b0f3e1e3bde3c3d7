"""CSV tables: what is read, and that every fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from helpers import error_line

from fsat.data.tables import read_first_rows, read_header, read_table, write_parts, write_table
from fsat.errors import DataError, Problem, listed
from fsat.text import why_not_a_label

REQUIRED = ("fname", "label")


def table_of(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_cells_come_as_texts_with_their_line(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "fname,label,fold\na.wav,Flute,01\nb.wav,NA,\n"), REQUIRED, ("fold",))
    assert table.frame.to_dict("records") == [
        {"row": 2, "fname": "a.wav", "label": "Flute", "fold": "01"},
        {"row": 3, "fname": "b.wav", "label": "NA", "fold": ""},
    ]
    assert table.problems == table.warnings == []


@pytest.mark.parametrize(
    "content",
    [
        "fname,label\na.wav,Flute\nb.wav,Bell\n",
        "fname,label\na.wav,Flute\nb.wav,Bell",  # no last line end
        "fname,label\r\na.wav,Flute\r\nb.wav,Bell\r\n",
        "fname,label\ra.wav,Flute\rb.wav,Bell\r",
        '"fname","label"\n"a.wav","Flute"\n"b.wav","Bell"\n',
        "fname;label\na.wav;Flute\nb.wav;Bell\n",
        "fname\tlabel\na.wav\tFlute\nb.wav\tBell\n",
        "fname|label\na.wav|Flute\nb.wav|Bell\n",
        "\ufefffname,label\r\na.wav,Flute\r\nb.wav,Bell\r\n",
        "fname\tlabel\r\na.wav\tFlute\r\nb.wav\tBell\r\n".encode("utf-16"),
        "label,fname\nFlute,a.wav\nBell,b.wav\n",
        " fname , label\na.wav,Flute\nb.wav,Bell\n",
        "fname, label\na.wav, Flute\nb.wav, \"Bell\"\n",
        '"fname"\t"label"\n"1"\t"a.wav"\t"Flute"\n"2"\t"b.wav"\t"Bell"\n',
    ],
    ids=["plain", "no end", "crlf", "cr", "quoted", "semicolons", "tabs", "bars", "utf-8 with a mark", "utf-16",
         "other order", "spaces in header", "spaces between", "row names of R"],
)  # fmt: skip
def test_ways_to_write_the_same_table(tmp_path: Path, content: str | bytes) -> None:
    frame = read_table(table_of(tmp_path, content), REQUIRED).frame
    assert frame[["row", *REQUIRED]].to_numpy().tolist() == [[2, "a.wav", "Flute"], [3, "b.wav", "Bell"]]


def test_lines_are_counted_with_blank_ones_and_those_inside_quotes(tmp_path: Path) -> None:
    content = 'fname,label\n\na.wav,"Flute\nBell"\n\n\nb.wav,Bell\n\n'
    frame = read_table(table_of(tmp_path, content), REQUIRED).frame
    assert frame[["row", "label"]].to_numpy().tolist() == [[4, "Flute\nBell"], [7, "Bell"]]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("sep=;\r\nfname;label\r\na.wav;Bell, loud\r\n", 3),
        ("\ufeffsep=|\nfname|label\na.wav|Bell, loud\n", 3),
        ("# made by a tool, 1.2\n\n# on Sunday\nfname;label\na.wav;Bell, loud\n", 5),
        ('# Segments, made on Sunday\r\n# fname, label\r\na.wav, "Bell, loud"\r\n', 3),
        ('#,fname,label\n1,a.wav,"Bell, loud"\n', 2),
    ],
)
def test_lines_above_the_header(tmp_path: Path, content: str, line: int) -> None:
    table = read_table(table_of(tmp_path, content), REQUIRED)
    assert table.frame[["row", *REQUIRED]].to_numpy().tolist() == [[line, "a.wav", "Bell, loud"]]


def test_the_first_rows(tmp_path: Path) -> None:
    path = table_of(tmp_path, "fname,label\na.wav,Bell\nb.wav\n")
    assert read_first_rows(path, 1) == [["a.wav", "Bell"]]
    assert read_first_rows(path, None) == [["a.wav", "Bell"], ["b.wav"]]


def test_many_unknown_columns_are_counted(tmp_path: Path) -> None:
    names = [f"mfcc{i}" for i in range(57)]
    table = read_table(table_of(tmp_path, f"fname,label,{','.join(names)}\na.wav,Bell{',0' * 57}\n"), REQUIRED)
    assert table.warnings == ["table.csv: unknown columns are left out: mfcc0, mfcc1, mfcc2, mfcc3, mfcc4, ... (57)"]


def test_unknown_columns_are_left_out_with_a_warning(tmp_path: Path) -> None:
    content = "\ufefffname,mood,label,row,reason,\nä.wav,sad,Flöte,7,x,y\n"  # also columns with fsat's own names
    table = read_table(table_of(tmp_path, content), REQUIRED)
    assert table.frame.to_dict("records") == [{"row": 2, "fname": "ä.wav", "label": "Flöte"}]
    assert table.warnings == [
        "table.csv: unknown columns are left out: mood, row, reason",
        "table.csv: 1 cell in columns without a name are left out, first 'y' in line 2",
    ]


@pytest.mark.parametrize("content", [
    "fname,label,,\na.wav,Bell,,\nb.wav,Flute,,\n",
    "fname,label,,\na.wav,Bell\nb.wav,Flute,\n",
    "fname,label\na.wav,Bell,,,\nb.wav,Flute, \n",
    "fname,,label,,\na.wav,,Bell,,\nb.wav,,Flute,,\n",
])  # fmt: skip
def test_empty_columns_without_a_name_are_as_if_they_were_not_there(tmp_path: Path, content: str) -> None:
    table = read_table(table_of(tmp_path, content), REQUIRED)
    assert table.frame[["fname", "label"]].to_numpy().tolist() == [["a.wav", "Bell"], ["b.wav", "Flute"]]
    assert (table.problems, table.warnings) == ([], [])


def test_cells_without_a_column_are_said(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, ",fname,label,\n0,a.wav,Bell,x\n1,b.wav,Flute,\n"), REQUIRED)
    assert table.frame["fname"].tolist() == ["a.wav", "b.wav"]
    assert table.warnings == ["table.csv: 3 cells in columns without a name are left out, first '0' in line 2"]
    table = read_table(table_of(tmp_path, "fname,label,\na.wav,Bell,,x\n"), REQUIRED)
    assert [problem.reason for problem in table.problems] == ["4 cells in a table of 2 columns"]


def test_ragged_rows_are_problems_with_their_line(tmp_path: Path) -> None:
    content = "label,fname\nFlute,a.wav\nBell\nBell,b.wav,1\nBell,c.wav\n"
    table = read_table(table_of(tmp_path, content), ("fname", "label"), split="test")
    assert table.frame["row"].tolist() == [2, 5]
    assert [(p.file, p.row, p.split) for p in table.problems] == [("table.csv", 3, "test"), ("table.csv", 4, "test")]
    assert "1 cell" in table.problems[0].reason
    assert "2 columns" in table.problems[0].reason
    assert table.problems[1].fname == "b.wav"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty", "fname,label"]),
        (b"fname,label\n", ["no rows"]),
        (b"file,tag\na.wav,Flute\n", ["unknown column layout", "'file,tag'", "fname,label", "missing fname, label"]),
        (b"a.wav,Flute\nb.wav,Bell\n", ["unknown column layout", "'a.wav,Flute'"]),  # no header
        (b"fname,label,label\na.wav,Flute,Bell\n", ["label", "twice"]),
        ("fname,label\na.wav,Flute\n".encode("utf-16")[:-1], ["wrong encoding", "UTF-16", "UTF-8"]),
        ("fname,label\na.wav,Flute\n".encode("utf-16-le"), ["wrong encoding", "UTF-8"]),  # without a mark
        (b'fname,label\na.wav,Flute\n"b.wav,Bell\nc.wav,Bell\n', ["not CSV", "line"]),
        (b'fname,label\na.wav,"Flute"x\n', ["not CSV", "line 2"]),
    ],
    ids=["empty", "header only", "layout", "no header", "column twice", "damaged utf-16",
         "utf-16 without mark", "open quote", "text after quote"],
)  # fmt: skip
def test_a_table_that_cannot_be_read(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = table_of(tmp_path, content)
    message = error_line(DataError, read_table, path, REQUIRED)
    assert message.startswith(f"{path}: ")
    assert [word for word in words if word not in message] == []


def test_windows_encoding_is_read_with_a_warning(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "fname,label\na.wav,Flute\nb.wav,Flöte\n".encode("cp1252")), REQUIRED)
    assert table.frame["label"].tolist() == ["Flute", "Flöte"]
    assert table.warnings == ["table.csv: not UTF-8, so read as Windows-1252; line 3 is 'b.wav,Flöte': correct?"]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text(
        '{"fname": "a.wav", "label": "Flöte"}\n\n{"label": ["Bell", "Cello"], "fname": "b.wav", "fold": 1}\n'
    )
    assert read_header(path) == ["fname", "label", "fold"]
    table = read_table(path, REQUIRED, ("fold",))
    assert table.frame.to_numpy().tolist() == [[1, "a.wav", "Flöte", ""], [3, "b.wav", "Bell,Cello", "1"]]
    for text, words in (('{"fname": 1}\n{"fname"\n', "line 2: not JSON"), ("[1]\n", "line 1: '[1]' is no object")):
        path.write_text(text)
        assert words in error_line(DataError, read_table, path, REQUIRED)


def test_no_such_table(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.csv", tmp_path):
        assert error_line(DataError, read_table, path, REQUIRED).startswith(f"{path}: cannot be read: ")


def test_problems_read_as_one_line() -> None:
    assert str(Problem("train.csv", 7, "a.wav", "missing file")) == "train.csv:7: a.wav: missing file"
    assert str(Problem("train.csv", 0, "", "too small")) == "train.csv: too small"
    assert str(Problem("train.csv", 7, "a\nb\x1b[2J.wav", "missing file")).isprintable()


def test_clips_of_a_wrong_label_are_one_line() -> None:
    crying, wrong = why_not_a_label("crying\tbaby"), why_not_a_label("it's\tdark")
    rows = [("a.wav", crying), ("b.wav", "missing file"), ("c.wav", wrong), ("d.wav", crying), ("e.wav", crying),
            ("f.wav", "missing file"), ("g.wav", why_not_a_label("")), ("h.wav", why_not_a_label(""))]  # fmt: skip
    lines = listed([Problem("train.csv", line, *row) for line, row in enumerate(rows, 2)])
    assert lines[0] == f"train.csv:2: a.wav: {crying}; 2 more clips with it"
    assert [line.split(":")[2].strip() for line in lines] == ["a.wav", "b.wav", "c.wav", "f.wav", "g.wav", "h.wav"]
    assert not [line for line in lines[1:] if " more " in line]


def test_a_written_table_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_table(pd.DataFrame({"fname": ["a,b.wav", 'c".wav'], "label": ["Flute Bell Cello", ""]}), path)
    frame = read_table(path, REQUIRED).frame
    assert frame[[*REQUIRED]].to_numpy().tolist() == [["a,b.wav", "Flute Bell Cello"], ['c".wav', ""]]
    whole = path.read_bytes()
    write_parts(path, [frame.iloc[:1, 1:], frame.iloc[1:, 1:]])
    assert path.read_bytes() == whole
