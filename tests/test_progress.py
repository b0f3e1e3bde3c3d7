"""A bar on a terminal, plain lines elsewhere."""

import os
import re
import subprocess
import sys

from conftest import ROOT

CODE = """
from fsat import progress
progress.PLAIN_LINE_SECONDS = 0
with progress.Progress("tagging", 3) as bar:
    for i in range(3):
        bar.advance()
    bar.say("half way")
"""


def test_plain_lines_where_there_is_no_terminal():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, last = done.stderr.splitlines()
    assert last == "half way"
    for i, line in enumerate(lines, start=1):
        assert re.fullmatch(rf"tagging: {i} of 3, \S+/s, \d:\d\d:\d\d left", line), line
    assert len(lines) == 3
    assert done.stdout == ""


def test_a_bar_on_a_terminal():
    ours, theirs = os.openpty()
    with subprocess.Popen([sys.executable, "-c", CODE], cwd=ROOT, stderr=theirs, env={**os.environ, "TERM": "xterm"}):
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    text = seen.decode()
    assert "tagging" in text
    assert "━" in text
    assert "3/3" in text
    assert "half way" in text
