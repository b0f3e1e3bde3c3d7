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


def test_plain_lines_without_a_terminal():
    result = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, last = result.stderr.splitlines()
    assert last == "half way"
    for i, line in enumerate(lines, start=1):
        assert re.fullmatch(rf"tagging: {i} of 3, \S+/s, \d:\d\d:\d\d left", line), line
    assert len(lines) == 3
    assert result.stdout == ""


def test_a_bar_on_a_terminal():
    reader, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", CODE], cwd=ROOT, stderr=terminal, env=environment):
        os.close(terminal)
        output = b""
        try:
            while part := os.read(reader, 4096):
                output += part
        except OSError:  # the process has closed the terminal
            pass
    os.close(reader)
    for text in ("tagging", "━", "3/3", "/s", "half way"):
        assert text in output.decode()
