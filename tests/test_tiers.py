"""Each package imports only from the tiers above it, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

TIERS = [
    {
        "errors",
        "interrupts",
        "progress",
        "settings",
        "presets",
        "config",
        "identity",
        "labels",
        "launch",
        "tag_settings",
        "threads",
        "thresholds",
    },
    {"scoring"},
    {"data"},
    {"datasets"},
    {"models"},
    {"training", "reports", "serving"},
    {"tagger"},
    {"tracking"},
    {"pipeline"},
    {"app"},
    {"cli"},
    {"__main__", "__init__"},
]
ALLOWED = {
    "mlflow": {"tracking"},
    "tensorflow": {"models", "training"},
    "keras": {"models", "training"},
    "click": {"cli"},
    "librosa": {"data"},
    "sklearn": {"data"},
    "ray": {"pipeline", "tracking"},
    "gradio": {"app"},
    "onnx": {"models"},
    "onnxruntime": {"models"},
    "tf2onnx": {"models"},
}
MODULES = sorted((ROOT / "fsat").rglob("*.py"))


def part(path) -> str:
    """First name below fsat: a package or a module."""
    return path.relative_to(ROOT / "fsat").parts[0].removesuffix(".py")


def tier(name: str) -> int:
    return next(i for i, names in enumerate(TIERS) if name in names)


def imports(path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_come_from_above(path):
    for name in imports(path):
        words = name.split(".")
        if words[0] == "fsat" and len(words) > 1 and words[1] != "__version__":
            assert tier(words[1]) <= tier(part(path)), name
            if tier(words[1]) == tier(part(path)) > 0:
                assert words[1] == part(path), f"{name}: a sibling"
        elif words[0] in ALLOWED:
            assert part(path) in ALLOWED[words[0]], name


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train_fold", "--help"], ["train_fold", "--fold", "abc"], ["train_fold", "--fold", "1",
                  "--model", "x"]],
)  # fmt: skip
def test_help_and_wrong_options_import_nothing_heavy(arguments):
    code = (
        "import sys; from fsat.cli import run; run(sys.argv[1:]);"
        "print('|'.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.strip().splitlines()[-1].split("|"))
    assert loaded.isdisjoint({"tensorflow", "keras", "mlflow", "pandas", "numpy", "librosa", "sklearn", "matplotlib"})
    assert "click" in loaded
