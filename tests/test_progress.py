"""A bar on a terminal, plain lines elsewhere."""

import os
import re
import sys
from contextlib import suppress

from fsat import progress


def tag_three_clips() -> None:
    with progress.Progress("tagging", 3) as bar:
        for _ in range(3):
            bar.advance()
        bar.say("half way")


def test_plain_lines_without_a_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0)
    tag_three_clips()
    output, messages = capsys.readouterr()
    *lines, last = messages.splitlines()
    assert (output, last) == ("", "half way")
    for i, line in enumerate(lines, start=1):
        assert re.fullmatch(rf"tagging: {i} of 3, \S+/s, \d:\d\d:\d\d left", line), line
    assert len(lines) == 3


def test_a_bar_on_a_terminal(monkeypatch) -> None:
    reader, terminal = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with open(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        tag_three_clips()
    output = b""
    with suppress(OSError):  # at the end
        while part := os.read(reader, 4096):
            output += part
    os.close(reader)
    for text in ("tagging", "━", "3/3", "/s", "half way"):
        assert text in output.decode()
