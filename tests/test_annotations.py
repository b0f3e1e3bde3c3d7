"""Annotation files of other programs, as these write them, become annotations of the right recordings."""

import random
from pathlib import Path

import pytest

from fsat.data.annotation_files import Columns
from fsat.data.annotations import Annotation, read_annotations
from fsat.errors import DataError

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
AUDACITY = "0.500000\t1.250000\tdog bark\n\\\t120.0\t8000.0\n2.000000\t2.750000\tChien, été\n"
EVENTS = [(0.5, 1.25, "dog bark"), (2.0, 2.75, "Chien, été")]


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(folder: Path, recordings=("day.wav",), root: Path | None = None, **options):
    return read_annotations(recordings, root or folder, folder, **options)


def events_of(annotations) -> list[tuple[float, float, str]]:
    return [(event.start, event.end, event.label) for event in annotations.events]


def raven(*rows: str, header: str = f"{RAVEN}\tAnnotation") -> str:
    return "".join(f"{line}\r\n" for line in (header, *rows))


FORMATS = {
    "day.txt": AUDACITY,
    "day.wav.txt": AUDACITY,
    "DAY.txt": AUDACITY,
    "day_labels.txt": AUDACITY,
    "sub/day.txt": AUDACITY,
    "day (commas).txt": "filename\tonset\toffset\ttag\n"
    "day.flac\t0,5\t1,25\tdog bark\nday.flac\t2,0\t2,75\tChien, été\n",
    "day.Table.1.selections.txt": raven(
        "1\tWaveform 1\t1\t0.5\t1.25\t0.0\t8000.0\tdog bark",
        "1\tSpectrogram 1\t1\t0.5\t1.25\t0.0\t8000.0\tdog bark",
        "2\tWaveform 1\t1\t2.0\t2.75\t0.0\t8000.0\t",
        "2\tSpectrogram 1\t1\t2.0\t2.75\t0.0\t8000.0\tChien, été",
    ),
    "day.selections.txt": raven(
        "1\tSpectrogram 1\t1\t0.5\t1.25\t0\t8000\tdog bark", "2\tSpectrogram 1\t1\t2.0\t2.75\t0\t8000\tChien, été",
        header=f"{RAVEN}\tSpecies",
    ),
    "raven_of_all.txt": raven(
        "1\tSpectrogram 1\t1\t100.5\t101.25\t0\t8000\tdog bark\tC:\\data\\day.wav\tday.wav\t0.5",
        "2\tSpectrogram 1\t1\t102.0\t102.75\t0\t8000\tChien, été\t\tday.wav\t2.0",
        header=f"{RAVEN}\tAnnotation\tBegin Path\tBegin File\tFile Offset (s)",
    ),
    "day.csv": 'start,end,label\n0.5,1.25,dog bark\n2,2.75,"Chien, été"\n',
    "day.tsv": "onset\toffset\tevent_label\n0.5\t1.25\tdog bark\n2\t2.75\tChien, été\n",
    "excel.csv": "\ufeffsep=;\r\n"
    "Datei;Filename;Begin;Stop;Class\r\n1;day.wav;0,5;1,25;dog bark\r\n1;day.wav;2;2,75;Chien, été\r\n",
    "utf16.txt": "filename\tstart_time\tend_time\tlabel\n"
    "day.wav\t0.5\t1.25\tdog bark\nday\t2\t2.75\tChien, été\n".encode("utf-16"),
    "latin1.csv": "file;Start (s);End (s);Species\n"
    "day.wav;0.5;1.25;dog bark\nday.wav;2;2.75;Chien, été\n".encode("latin-1"),
    "durations.csv": 'IN FILE,OFFSET,DURATION,MANUAL ID\nday.wav,0.5,0.75,dog bark\nday.wav,2,0.75,"Chien, été"\n',
    "dcase.txt": "day.wav\t0.5\t1.25\tdog bark\nday.wav\t2\t2.75\tChien, été\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_format_is_read(tmp_path, name):
    annotated, problems, warnings = read(write(tmp_path, {name: FORMATS[name]}))
    assert [str(problem) for problem in problems] == []
    assert events_of(annotated["day.wav"]) == EVENTS
    assert annotated["day.wav"].files == [name]
    assert bool(warnings) == (name in ("latin1.csv", "sub/day.txt")), warnings


def test_rows_are_lines_of_the_file(tmp_path):
    annotated, _, _ = read(write(tmp_path, {"day.txt": "\n" + AUDACITY}))
    assert annotated["day.wav"].events[1] == Annotation(2.0, 2.75, "Chien, été", "day.txt", 4)


def test_named_columns_are_used(tmp_path):
    write(tmp_path, {"all.csv": "clip,from,to,bird,label\nday.wav,1,2,robin,x\n"})
    annotated, problems, _ = read(tmp_path, columns=Columns("clip", "from", "to", "bird"))
    assert not problems
    assert events_of(annotated["day.wav"]) == [(1, 2, "robin")]


def test_of_several_label_columns_the_used_one_is_named(tmp_path):
    write(tmp_path, {"day.csv": "start,end,Common name,Species Code\n1,2,Robin,rob\n"})
    annotated, _, warnings = read(tmp_path)
    assert events_of(annotated["day.wav"]) == [(1, 2, "Robin")]
    assert "labels are in column Common name, not Species Code (label_column=NAME)" in warnings[0]


FAULTS = {
    "1.0\t0.5\tdog": (1, "end=0.5: before start=1"),
    "-1.0\t0.5\tdog": (1, "start=-1: expected at least 0 s"),
    "0.0\t1.0\tdog\n0.5\tx\tdog": (2, "end='x': expected a number of seconds"),
    "0.0\tnan\tdog": (0, "columns"),
    "0.0\t1.0\t": (1, "the label is empty"),
    "0.0\t1.0": (1, "the label is empty"),
    "0.0\t1.0\tdog\textra": (1, "4 cells; expected start, end, label"),
    "0.5\t11.0\tdog": (1, "the recording ends at 10 s"),
    "12\t13\tdog": (1, "the recording ends at 10 s"),
    "1.5\t1.5\tdog": (1, "has no length; drag its end, or say how long"),
    "0.0\t1.5\tdog\n1\t2,5\tdog": (2, "decimal mark; use one"),
    "0.5 1.5 dog": (0, "without a column of"),
    "start,end,label\n1,2,a\n3,4": (3, "2 cells in a table of 3 columns"),
    'start,end,label\n1,2,"a': (0, "line 2: not a table"),
    "begin,label\n1,dog": (0, "without a column of end; expected an Audacity label track"),
    "\xff\x00": (0, "NUL bytes"),
}


@pytest.mark.parametrize("text", FAULTS)
def test_every_fault_has_its_file_and_line(tmp_path, text):
    row, reason = FAULTS[text]
    _, problems, _ = read(write(tmp_path, {"day.txt": text.encode("latin-1")}), lengths={"day.wav": 10.0})
    assert [(problem.file, problem.row) for problem in problems] == [("day.txt", row)]
    assert reason in str(problems[0])


def test_damaged_files_give_annotations_or_printable_faults(tmp_path):
    rng = random.Random(0)
    contents = [text.encode() if isinstance(text, str) else text for text in FORMATS.values()]
    pieces = [b'"', b"\t", b";", b"\n", b"\0", b"\xff\xfe", b"1e999", b"nan", b"\xe2\x80\xa8", b"x" * 200_000, b"sep=;"]
    for _ in range(300):
        data = bytearray(rng.choice(contents))
        at = rng.randrange(len(data))
        data[at : at + rng.choice([0, 0, 1, 5])] = rng.choice(pieces)
        write(tmp_path, {"day.txt": bytes(data)})
        annotated, problems, warnings = read(tmp_path, lengths={"day.wav": 100.0})
        assert all(line.isprintable() for line in [*map(str, problems), *warnings])
        events = [event for item in annotated.values() for event in item.events]
        assert all(0 <= event.start < event.end <= 100 and event.label.strip() for event in events)


def test_a_rounded_end_is_cut_at_the_end_of_the_recording(tmp_path):
    annotated, problems, _ = read(write(tmp_path, {"day.txt": "9\t10.05\tdog"}), lengths={"day.wav": 10.0})
    assert not problems
    assert events_of(annotated["day.wav"]) == [(9, 10, "dog")]


def test_a_point_gets_the_length_that_is_asked_for(tmp_path):
    annotated, problems, _ = read(write(tmp_path, {"day.txt": "0.5\t0.5\tdog\n4\t4\tdog\n"}), point_seconds=2)
    assert not problems
    assert events_of(annotated["day.wav"]) == [(0, 1.5, "dog"), (3, 5, "dog")]


def test_tracks_are_paired_by_folder_and_name(tmp_path):
    recordings = ["s1/day.wav", "s2/day.wav", "s2/night.flac", "S1.2020.wav"]
    labels = {name: f"1\t2\t{name}" for name in ("s1/day.txt", "s2/day.wav.txt", "s2/night.txt", "S1.2020.txt")}
    write(tmp_path / "labels", labels)
    annotated, problems, warnings = read(tmp_path / "labels", recordings, tmp_path / "sounds")
    assert not problems
    assert not warnings
    assert list(annotated) == recordings
    found = {name: own.events[0].label for name, own in annotated.items()}
    assert found == dict(zip(recordings, labels, strict=True))


def test_a_track_of_a_missing_recording_is_not_given_to_another(tmp_path):
    write(tmp_path, {"s1/day.txt": "1\t2\tdog", "s2/day.txt": "1\t2\tcat"})
    annotated, problems, _ = read(tmp_path, ["s2/day.wav"])
    assert events_of(annotated["s2/day.wav"]) == [(1, 2, "cat")]
    assert [str(problem) for problem in problems] == [
        "s1/day.txt: no recording is called day, as s2/day.wav has other annotations; name it after its recording, as "
        "day.txt for day.wav"
    ]


def test_a_track_in_another_folder_is_paired_with_a_word(tmp_path):
    annotated, problems, warnings = read(write(tmp_path, {"labels/day.txt": "1\t2\tdog"}), ["audio/day.wav"])
    assert not problems
    assert events_of(annotated["audio/day.wav"]) == [(1, 2, "dog")]
    assert warnings == [
        "1 annotation file in other folders than their recordings, first labels/day.txt for audio/day.wav"
    ]


def test_a_track_for_two_recordings_is_a_fault(tmp_path):
    write(tmp_path, {"day.txt": "1\t2\tdog"})
    for recordings in (["a/day.wav", "b/day.wav"], ["day.wav", "day.flac"]):
        _, problems, _ = read(tmp_path, recordings)
        assert f"may be 2 recordings, {' and '.join(recordings)}; give the name with its folder" in str(problems[0])
    write(tmp_path, {"day.flac.txt": "1\t2\tcat"})
    annotated, problems, _ = read(tmp_path, ["day.wav", "day.flac"])
    assert events_of(annotated["day.flac"]) == [(1, 2, "cat")]
    assert len(problems) == 1


def test_names_in_rows_are_faults_if_no_recording_has_them(tmp_path):
    rows = "filename,onset,offset,event_label\nday.wav,1,2,dog\nnight.wav,1,2,dog\nnight.wav,3,4,dog\n,5,6,dog\n"
    write(tmp_path, {"all.csv": rows})
    _, problems, _ = read(tmp_path)
    assert [str(problem) for problem in problems] == [
        "all.csv:3: night.wav: no recording has this name",
        "all.csv:5: column filename is empty; expected a recording",
    ]
    annotated, problems, warnings = read(tmp_path, complete=False)
    assert len(problems) == 1
    assert len(annotated["day.wav"].events) == 1
    assert warnings == ["1 name of other recordings in the annotations, first night.wav: left out"]


def test_recordings_without_sounds_and_without_annotations_differ(tmp_path):
    write(tmp_path, {"a.txt": "", "all.csv": "file,start,end,label\nb.wav,,,\nc.wav,1,2,dog\n"})
    annotated, problems, warnings = read(tmp_path, ["a.wav", "b.wav", "c.wav", "d.wav"])
    assert not problems
    assert {name: len(own.events) for name, own in annotated.items()} == {"a.wav": 0, "b.wav": 0, "c.wav": 1}
    assert warnings == ["1 recording without annotations: d.wav"]


def test_a_selection_table_without_rows_is_of_a_recording_without_sounds(tmp_path):
    header = f"{RAVEN}\tBegin File\tAnnotation"
    write(tmp_path, {"day.Table.1.selections.txt": raven("1\tS 1\t1\t1\t2\t0\t8\tday.wav\tdog", header=header)})
    write(tmp_path, {"night.Table.1.selections.txt": raven(header=header), "all.csv": "file,start,end,label\n"})
    write(tmp_path, {"two.Table.1.selections.txt": raven(header=header)})
    annotated, problems, warnings = read(tmp_path, ["day.wav", "night.wav", "dawn.wav", "two.wav", "two.flac"])
    assert not problems
    assert {name: len(own.events) for name, own in annotated.items()} == {"day.wav": 1, "night.wav": 0}
    assert warnings == ["3 recordings without annotations: dawn.wav, two.wav, two.flac"]


def test_quotes_in_selection_tables_are_text(tmp_path):
    """Raven writes cells as they are, spreadsheets in quotes where they need these."""
    labels = ['"Dog" bark', '12" record', '"unfinished', 'the end"', '"Chien, ""été"""']
    rows = (f"{i}\tSpectrogram 1\t1\t{i}\t{i + 1}\t0\t8000\t{label}" for i, label in enumerate(labels))
    annotated, problems, _ = read(write(tmp_path, {"day.Table.1.selections.txt": raven(*rows)}))
    assert not problems
    assert [event.label for event in annotated["day.wav"].events] == [*labels[:-1], 'Chien, "été"']


def test_what_is_left_out_is_named(tmp_path):
    write(tmp_path, {"day.txt": AUDACITY, "README.txt": "Read me", "a.xlsx": "x", "b.aup3": "x", ".day.txt": "?"})
    _, problems, warnings = read(tmp_path)
    assert not problems
    assert warnings[0] == "left out: 1 file .xlsx; save as CSV"
    assert "export the labels from Audacity" in warnings[1]
    assert warnings[2].startswith("README.txt: left out, as no recording has its name: its first line is 'Read me'")


def test_annotations_of_several_files_are_joined_without_repeats(tmp_path):
    write(tmp_path, {"day.txt": AUDACITY, "day.csv": "start,end,label\n0.5,1.25,dog bark\n5,6,cat\n"})
    annotated, _, warnings = read(tmp_path)
    assert events_of(annotated["day.wav"]) == [*EVENTS, (5, 6, "cat")]
    assert warnings == [
        "day.txt:1: repeats an annotation, which counts once",
        "day.wav (day.csv, day.txt): has several annotation files, which are all used",
    ]


def test_warnings_of_many_files_are_one_line(tmp_path):
    files = {f"{i}.csv": "start,end,Common name,Species Code\n1,2,Robin,rob\n" for i in range(9)}
    _, _, warnings = read(write(tmp_path, files), [f"{i}.wav" for i in range(9)])
    assert warnings == [
        "0.csv: labels are in column Common name, not Species Code (label_column=NAME) (and 8 more like it)"
    ]


def test_tags_of_predict_are_taken_as_annotations_with_a_word(tmp_path):
    rows = "day.wav,1,2,dog,0.9,,\nday.wav,2,3,,,,silent\nnight.wav,,,,,,low level\n"
    write(tmp_path, {"tags.csv": f"fname,start,end,label,score,error,note\n{rows}"})
    annotated, problems, warnings = read(tmp_path, ["day.wav", "night.wav"])
    assert not problems
    assert [events_of(item) for item in annotated.values()] == [[(1, 2, "dog")], []]
    assert warnings == ["tags.csv: has tags that predict wrote, which are taken as annotations"]


def test_folders_are_entered_through_links_once(tmp_path):
    write(tmp_path / "real", {"day.txt": AUDACITY})
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/link").symlink_to(tmp_path / "real")
    annotated, problems, _ = read(tmp_path / "labels", root=tmp_path)
    assert not problems
    assert annotated["day.wav"].files == ["link/day.txt"]


def test_one_file_belongs_to_one_recording_whatever_its_name(tmp_path):
    write(tmp_path, {"labels.txt": AUDACITY})
    annotated, problems, _ = read_annotations(["day.wav"], tmp_path, tmp_path / "labels.txt")
    assert not problems
    assert events_of(annotated["day.wav"]) == EVENTS
    _, problems, _ = read_annotations(["day.wav", "night.wav"], tmp_path, tmp_path / "labels.txt")
    assert "no recording is called labels; name it after its recording" in str(problems[0])


def test_one_file_is_a_folder_of_one(tmp_path):
    write(tmp_path, {"x/all.csv": "file,start,end,label\nday.wav,1,2,dog\n"})
    annotated, _, _ = read_annotations(["day.wav"], tmp_path, tmp_path / "x/all.csv")
    assert events_of(annotated["day.wav"]) == [(1, 2, "dog")]


def test_a_folder_without_annotations_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no such folder of annotations; expected an Audacity label track"):
        read(tmp_path / "none")
    write(tmp_path, {"day.xlsx": "x"})
    with pytest.raises(DataError, match=r"day.xlsx: cannot be read as annotations; save as CSV"):
        read_annotations(["day.wav"], tmp_path, tmp_path / "day.xlsx")
    with pytest.raises(DataError, match=r"no annotations in files .txt, .csv, .tsv, .tab; left out: 1 file .xlsx"):
        read(tmp_path)
