"""Run one side of a comparison in this process: ``python -m benchmarks.side MODULE:FUNCTION RESULT``.

Read keyword arguments as JSON from standard input, and write what the function returns as JSON to the file RESULT.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path


def main(target: str, result: str) -> None:
    """Call `target` with the arguments from standard input and write its result to a file."""
    if (core := os.environ.get("FSAT_BENCH_CORE")) and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    module, function = target.split(":")
    arguments = json.load(sys.stdin)
    Path(result).write_text(json.dumps(getattr(importlib.import_module(module), function)(**arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
