"""MLproject, the command line, Config and the README say the same."""

import hashlib
import re
from dataclasses import fields

import click
import pytest
import yaml
from conftest import ROOT

from fsat.cli import cli
from fsat.config import MODELS, PRESETS, Config

README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
ENTRY_POINTS = ["main", "eda", "train_fold", "cross_validate", "ensemble", "verify", "predict", "export"]


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


def test_readme_names_every_command_model_and_preset():
    for name in [*cli.commands, *MODELS, *PRESETS]:
        assert f"`{name}`" in README or f"fsat {name}" in README or f"-e {name}" in README, name


def test_readme_lists_every_setting_with_its_default():
    for spec in fields(Config):
        assert re.search(rf"\| `{spec.name}` \| {re.escape(str(spec.default))} \|", README), spec.name


@pytest.mark.parametrize("page", [README, *PAGES.values()], ids=["README.md", *PAGES])
def test_options_in_the_documentation_exist(page):
    known = {option.name for command in cli.commands.values() for option in command.params}
    used = set(re.findall(r"-P\s(\w+)=", page))
    assert used <= known, used - known
    stages = set(re.findall(r"mlflow run \S+.*? -e (\w+)", page))
    assert stages <= set(ENTRY_POINTS)


@pytest.mark.parametrize("page", [README, *PAGES.values()], ids=["README.md", *PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        assert (ROOT / target).exists() or (ROOT / "docs" / target).exists(), target


def test_the_readme_lists_every_option_of_a_launch():
    defaults = {option.name: option.default for option in [*launch_options(), *cluster_options()]}
    for name, default in defaults.items():
        row = re.search(rf"^\| .*`{name}`.* \| (\w+) \|", README, re.MULTILINE)
        assert row, name
        assert row.group(1) == str(default).lower(), name


def launch_options() -> list[click.Option]:
    names = ("resume", "checkpoint_to", "parallel_folds")
    return [option for option in cli.commands["cross_validate"].params if option.name in names]


def cluster_options() -> list[click.Option]:
    found = [option for option in cli.commands["predict"].params if option.name.startswith(("ray_", "cluster"))]
    assert len(found) == 4
    return found


def test_mlflow_run_lines_in_the_readme_name_entry_points():
    used = set(re.findall(r"mlflow run \S+.*? -e (\w+)", README))
    assert used == set(ENTRY_POINTS) - {"main"}


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
