"""Each package imports only from the tiers above it, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TIERS = [
    {
        "errors",
        "text",
        "files",
        "config",
        "study",
        "setting_texts",
        "model_names",
        "model_presets",
        "options",
        "layout_options",
        "interrupts",
        "progress",
    }
    | {"user_folders"},
    {"parallel"},
    {"metrics"},
    {"data"},
    {"download"},
    {"models"},
    {"backbones"},
    {"training"},
    {"reports"},
    {"tagging"},
    {"export"},
    {"tracking"},
    {"commands"},
    {"serving", "app"},
    {"cli"},
    {"__main__", "__init__"},
]
"""As design.md has them: a package imports itself, tiers above its own, and, in the first tier, its neighbours."""

ALLOWED = {
    "mlflow": {"tracking"}, "ray": {"parallel"}, "librosa": {"data"}, "sklearn": {"data"}, "click": {"cli"},
    "tensorflow": {"models", "backbones", "training", "export"}, "keras": {"models", "backbones", "training", "export"},
    "jinja2": {"app", "reports"}, "gradio": {"app"}, "fastapi": {"app", "serving"},
    "onnx": {"backbones", "export"}, "onnxruntime": {"backbones", "export"}, "tf2onnx": {"export"},
}  # fmt: skip
"""Packages that may import a library."""

INDEPENDENT = {"tracking": {"reports", "training", "tagging"}}
"""Packages above it that a package does without."""

OPTIONAL = {"export": {"commands/export.py"}, "download": {"cli/data_commands.py"}, "app": {"cli/tag_commands.py"},
            "serving": {"tagging/__init__.py"}}  # fmt: skip
"""Packages that can be deleted, and what imports them: commands of their own, and the registered model's loader, which
imports `fsat.serving` in MLflow's scoring server only."""

MODULES = sorted(path.relative_to(ROOT / "fsat") for path in (ROOT / "fsat").rglob("*.py"))


def tier(name: str) -> int:
    return next(i for i, names in enumerate(TIERS) if name in names)


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((ROOT / "fsat" / path).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names |= {f"{module}{alias.name}" for alias in node.names}
    return names - {"fsat.__version__"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_come_from_above(path):
    own = path.parts[0].removesuffix(".py")  # the package
    for name in imports(path):
        library, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if library == "fsat" and other not in ("", own):
            assert tier(other) < tier(own) or tier(other) == 0 or str(path) in OPTIONAL.get(other, ()), name
            assert other not in INDEPENDENT.get(own, ()), name
            assert other not in OPTIONAL or {own, str(path)} & OPTIONAL[other], name
        assert own in ALLOWED.get(library, {own}), name


def test_help_wrong_options_and_cache_import_nothing_heavy(tmp_path):
    code = """
import sys
from fsat.cli import run
for arguments in (["--help"], ["train_fold", "--help"], ["train_fold", "--fold", "abc"],
                  ["train_fold", "--fold", "1", "--model", "x"]):
    run(arguments)
print(*{name.partition(".")[0] for name in sys.modules})
run(["cache"])
print(*{name.partition(".")[0] for name in sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *_, before, cache = (set(line.split()) for line in done.stdout.splitlines() if "click" in line.split())
    heavy = {"tensorflow", "keras", "mlflow", "librosa", "sklearn", "matplotlib"}
    assert before.isdisjoint({*heavy, "pandas", "numpy"})
    assert cache.isdisjoint(heavy)
