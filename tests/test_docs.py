"""MLproject, the command line, Config and the README say the same."""

import hashlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
import soundfile
import yaml
from conftest import ROOT
from helpers import tone

from docs import make_reference
from docs.pages import PAGES, Command, commands, fsat_arguments
from docs.run_commands import BACKGROUND, TESTED_PAGES, elsewhere
from fsat.cli import cli
from fsat.config import MODELS, PRESETS, Config
from fsat.data.audio import SUFFIXES
from fsat.data.manifest import read_manifest

TEXTS = {path.name: path.read_text() for path in PAGES}
README = TEXTS["README.md"]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
ENTRY_POINTS = ["main", "eda", "train_fold", "cross_validate", "ensemble", "verify", "predict", "export"]


REFERENCE = TEXTS["configuration.md"] + TEXTS["entry-points.md"]


def test_entry_points_are_commands_of_the_same_name():
    assert list(PROJECT["entry_points"]) == ENTRY_POINTS
    for name, entry in PROJECT["entry_points"].items():
        assert entry["command"].startswith(f"python -m fsat {name}")
        assert name in cli.commands


def test_required_options_are_the_listed_parameters():
    for name, entry in PROJECT["entry_points"].items():
        required = {option.name for option in cli.commands[name].params if option.required}
        assert required == set(entry.get("parameters", {}))


@pytest.mark.parametrize("name", ["main", "train_fold", "cross_validate"])
def test_every_setting_is_an_option_with_underscores(name):
    options = {text for option in cli.commands[name].params for text in option.opts}
    assert {f"--{spec.name}" for spec in fields(Config)} <= options
    assert {"--preset", "--data_dir", "--on_bad_clip"} <= options


def test_every_command_and_option_has_help():
    for name, command in cli.commands.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_the_pages_name_every_command_model_and_preset():
    for name in [*cli.commands, *MODELS, *PRESETS]:
        assert any(f"{before}{name}" in REFERENCE for before in ("`", "fsat ", "-e ", "## ")), name
        assert name not in cli.commands or any(f"{before}{name}" in README for before in ("`", "fsat ", "-e ")), name


def test_the_reference_is_what_the_code_says():
    assert TEXTS["configuration.md"] == make_reference.configuration(), "run `python -m docs.make_reference`"
    page = TEXTS["entry-points.md"]
    assert page == make_reference.entry_points(page), "run `python -m docs.make_reference`"
    for spec in fields(Config):
        assert re.search(rf"^\| `{spec.name}` \| {re.escape(str(spec.default))} \|", TEXTS["configuration.md"], re.M)
    for name, command in cli.commands.items():
        if any(isinstance(option, click.Option) and option.expose_value for option in command.params):
            assert f"<!-- options of {name} -->\n|" in page, name


def test_the_reference_has_every_environment_variable():
    used = {
        name
        for path in (ROOT / "fsat").rglob("*.py")
        for name in re.findall(r"FSAT_[A-Z]+(?:_[A-Z]+)*", path.read_text())
    }
    assert used == set(make_reference.VARIABLES)


COMMANDS = [command for page in PAGES for command in commands(page)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_the_commands_in_the_documentation_can_be_given(command: Command):
    """`python -m docs.run_commands` runs them, or says which test does."""
    arguments = fsat_arguments(re.sub(r" &$", "", command.text))
    if arguments is None:
        assert elsewhere(command) or command.text in BACKGROUND or command.text.split()[0] in PROGRAMS
    else:
        name, *rest = arguments
        cli.commands[name].make_context(name, [re.sub(r"^N$", "2", word) for word in rest])


PROGRAMS = ("make", "mlflow", "printf", "find")
"""Others than fsat whose commands the documentation has, and `docs.run_commands` runs."""


def test_where_commands_are_run_otherwise_is_there():
    for command in COMMANDS:
        if (where := elsewhere(command)).startswith("tests/"):
            assert (ROOT / where.split(",")[0]).is_file()
    for page, test in TESTED_PAGES.items():
        assert page in (ROOT / test).read_text()


@pytest.mark.parametrize("page", TEXTS.values(), ids=TEXTS)
def test_options_in_the_documentation_exist(page):
    known = {option.name for command in cli.commands.values() for option in command.params}
    used = set(re.findall(r"-P\s(\w+)=", page))
    assert used <= known, used - known
    stages = set(re.findall(r"mlflow run \S+.*? -e (\w+)", page))
    assert stages <= set(ENTRY_POINTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^): ]+)\)|src=\"([^\":]+)\"", TEXTS[page.name]):
        name, _, anchor = "".join(target).partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}, target


def test_mlflow_run_lines_in_the_readme_name_entry_points():
    used = set(re.findall(r"mlflow run \S+.*? -e (\w+)", README))
    assert used == set(ENTRY_POINTS) - {"main"}


def test_pages_say_what_to_do_without_conda_before_their_first_mlflow_run():
    for page in PAGES[1:]:
        text = TEXTS[page.name]
        if any(command.text.startswith("mlflow run .") for command in commands(page)):
            assert text.count(WITHOUT_CONDA) == 1, page.name
            assert text.index(WITHOUT_CONDA) < text.index("\nmlflow run ."), page.name
    assert README.count(WITHOUT_CONDA) == 1


WITHOUT_CONDA = """
`mlflow run` takes conda for granted: without it, activate `.venv` and add `--env-manager local` to such commands, or
write `python -m fsat eda --data_dir DIR` for `mlflow run . -e eda -P data_dir=DIR`, and so on.
"""


def test_conda_env_points_to_the_lock():
    text = (ROOT / "conda.yaml").read_text()
    conda = yaml.safe_load(text)
    assert f"# lock: {hashlib.sha256((ROOT / 'requirements.lock').read_bytes()).hexdigest()[:16]}\n" in text
    assert {"pip": ["-r requirements.lock"]} in conda["dependencies"]
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    for line in lock.split("\n"):
        assert not line or re.match(r"[A-Za-z0-9._-]+==\S+( ; .+)?$", line), line


def test_lock_holds_every_dependency():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    assert {re.match(r"[\w.-]+", text).group() for text in wanted} <= locked


def table_of_sounds(folder: Path) -> subprocess.CompletedProcess:
    """What docs/data.md does for a folder of classes, which is ``SOUNDS``."""
    section = TEXTS["data.md"].partition("## A table for a folder of your own")[2]
    move = re.search(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[1]
    program = re.search(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[1]
    subprocess.run(["bash", "-ec", move], cwd=folder, check=True)
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)


def test_the_program_for_a_folder_of_classes_writes_a_table_of_all_kinds_of_files(tmp_path):
    names = [f"{label}/{number}{suffix}" for label in ("crying baby", "Dog_bark")
             for number, suffix in enumerate([*SUFFIXES, ".OGG"])]  # fmt: skip
    names.append("Dog_bark/at night/9.wav")
    for name in names:
        path = tmp_path / "SOUNDS" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(440, 0.3, 8000), 8000, format=path.suffix[1:].upper())
    (tmp_path / "SOUNDS" / "Dog_bark" / "notes.txt").write_text("no clip")
    done = table_of_sounds(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"DIR/train.csv: {len(names)} clips of 2 labels\n"
    manifest = read_manifest(tmp_path / "DIR")
    assert sorted(manifest.train["fname"]) == sorted(names)
    assert manifest.labels == ["Dog_bark", "crying_baby"]
    assert set(manifest.train["manually_verified"]) == {0}
    assert not manifest.problems


@pytest.mark.parametrize("names", [[], ["loose.wav", "Bell/1.wav"]], ids=["no clips", "a clip in no folder"])
def test_the_program_for_a_folder_of_classes_says_what_it_lacks(names, tmp_path):
    (tmp_path / "SOUNDS" / "Bell").mkdir(parents=True)
    for name in names:
        (tmp_path / "SOUNDS" / name).touch()
    done = table_of_sounds(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "expected a folder for each label" in done.stderr
    assert not (tmp_path / "DIR" / "train.csv").exists()
