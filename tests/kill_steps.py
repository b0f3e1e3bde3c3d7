"""Download a dataset or backbone many times, each time killed a step later; check its files, and that it can go on.

    kill_steps.py NAME URL FOLDER KNOWN SHARE

Steps are the opening, renaming, linking, creation and removal of a file or folder of the download, and each half of a
write. KNOWN is a pickle of the result of `zip_server.small_...`; SHARE of the steps are tried. Prints the numbers of
kills and of steps. Each download is a child of this process, so that it need not import anything.
"""

import itertools
import os
import pickle
import random
import signal
import sys
from contextlib import redirect_stderr
from pathlib import Path

import filelock  # noqa: F401
import requests  # noqa: F401
import soundfile  # noqa: F401
from zip_server import files_of

from fsat import files
from fsat.download import fetch, install, unpack
from fsat.download.catalogue import PUBLISHED

name, url, top, known, share = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4], float(sys.argv[5])
dataset, _, expected = pickle.loads(Path(known).read_bytes())
PUBLISHED[name] = dataset
os.sync = lambda: None
steps, limit, folder = 0, None, None


def step():
    global steps
    steps += 1
    if steps == limit:
        os.kill(os.getpid(), signal.SIGKILL)


def hook(event, arguments):
    counts = event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")
    if counts and folder and str(folder) in str(arguments[0]):
        step()


def in_halves(file, data):
    half = len(data) // 2
    step()
    real(file, data[:half])
    step()
    real(file, data[half:])


real = files.write_all
fetch.write_all = unpack.write_all = in_halves
sys.addaudithook(hook)


def child(limit_of_it):
    global limit, steps
    pid = os.fork()
    if pid == 0:
        limit, steps = limit_of_it, 0
        with open(os.devnull, "w") as nothing, redirect_stderr(nothing):
            install.download(name, folder, url, retries=0)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def check(k):
    if (folder / dataset.last).exists():
        found = {path: data for path, data in files_of(folder).items() if not path.startswith(".downloads")}
        assert found == expected, k


killed, rng = 0, random.Random(1)
for k in itertools.count(1):
    if rng.random() > share:
        continue
    folder = top / str(k)
    status = child(k)
    check(k)
    if status == 0:
        break
    assert status == signal.SIGKILL, (k, status)
    killed += 1
    again = child(k + 3 if k % 2 else None)  # every second time it is killed again a little later
    check(k)
    assert again == 0 or child(None) == 0, k
    assert files_of(folder) == expected, (k, set(files_of(folder)) ^ set(expected))
    assert not (folder / ".downloads").exists(), k
print(killed, k)
