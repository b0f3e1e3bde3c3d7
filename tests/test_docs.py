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
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
ENTRY_POINTS = ["main", "eda", "train_fold", "cross_validate", "ensemble", "verify", "predict"]


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


def test_options_in_the_readme_exist():
    known = {option.name for command in cli.commands.values() for option in command.params}
    used = set(re.findall(r"-P (\w+)=", README))
    assert used <= known, used - known


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
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.match(r"[\w.-]+", text).group() for text in wanted} <= locked
