"""The documentation agrees with MLproject, the command line, Config and the lock file."""

import hashlib
import re
import tomllib
from dataclasses import fields

import click
import pytest
import yaml
from conftest import ROOT

from docs import make_reference
from docs.pages import PAGES, Command, commands, fsat_arguments
from docs.run_commands import SERVERS, TESTED_PAGES, why_not_run
from fsat import __version__
from fsat.cli import cli
from fsat.config import Config
from fsat.model_presets import MODELS, PRESETS

TEXTS = {path.name: path.read_text() for path in PAGES}
README = TEXTS["README.md"]
REFERENCE = TEXTS["configuration.md"] + TEXTS["commands.md"]
COMMANDS = [command for page in PAGES for command in commands(page)]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
ENTRY_POINTS = [
    "main",
    "eda",
    "train_fold",
    "cross_validate",
    "ensemble",
    "verify",
    "predict",
    "evaluate",
    "segments",
    "export",
    "embed",
]
OTHER_PROGRAMS = ("make", "mlflow", "printf", "find")
"""Programs other than fsat that `docs.run_commands` runs."""


def test_entry_points_are_commands_of_the_same_name():
    assert list(PROJECT["entry_points"]) == ENTRY_POINTS
    for name, entry_point in PROJECT["entry_points"].items():
        assert entry_point["command"].startswith(f"python -m fsat {name}")
        required = {option.name for option in cli.commands[name].params if option.required}
        assert required == set(entry_point.get("parameters", {}))


def test_every_setting_is_an_option_with_underscores():
    settings = {f"--{setting.name}" for setting in fields(Config)}
    for name in ("main", "train_fold", "cross_validate"):
        options = {text for option in cli.commands[name].params for text in option.opts}
        assert {*settings, "--preset", "--data_dir", "--on_bad_clip"} <= options, name


def test_every_command_and_option_has_help():
    for name, command in {**cli.commands, **make_reference.all_commands()}.items():
        assert command.help, name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"


def test_the_pages_name_every_command_model_and_preset():
    for name in [*cli.commands, *MODELS, *PRESETS]:
        mentions = [f"{prefix}{name}" for prefix in ("`", "fsat ", "-e ", "## ")]
        assert any(mention in REFERENCE for mention in mentions), name
        assert name not in cli.commands or any(mention in README for mention in mentions[:3]), name


def test_the_reference_is_up_to_date():
    assert TEXTS["configuration.md"] == make_reference.configuration(), "run `python -m docs.make_reference`"
    page = TEXTS["commands.md"]
    assert page == make_reference.update_option_tables(page), "run `python -m docs.make_reference`"
    for setting in fields(Config):
        default = setting.metadata["shown"] or str(setting.default)
        row = rf"^\| `{setting.name}` \| {re.escape(default)} \|"
        assert re.search(row, TEXTS["configuration.md"], re.MULTILINE), setting.name
    for name, command in make_reference.all_commands().items():
        if any(isinstance(option, click.Option) and option.expose_value for option in command.params):
            assert f"<!-- options of {name} -->\n|" in page, name


def test_the_reference_lists_every_environment_variable():
    code = "".join(path.read_text() for path in (ROOT / "fsat").rglob("*.py"))
    assert set(re.findall(r"FSAT_[A-Z]+(?:_[A-Z]+)*", code)) == set(make_reference.VARIABLES)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_commands_of_the_documentation_parse(command: Command):
    """`python -m docs.run_commands` runs them, or says which test does."""
    arguments = fsat_arguments(re.sub(r" &$", "", command.text))
    if arguments is None:
        assert why_not_run(command) or command.text in SERVERS or command.text.split()[0] in OTHER_PROGRAMS
    else:
        known = make_reference.all_commands()
        n_words = 1 if arguments[0] in known else 2
        name = " ".join(arguments[:n_words])
        known[name].make_context(name, [re.sub(r"^N$", "2", word) for word in arguments[n_words:]])


def test_tests_that_run_commands_of_the_documentation_exist():
    for command in COMMANDS:
        if (reason := why_not_run(command)).startswith("tests/"):
            assert (ROOT / reason.split(",")[0]).is_file()
    for page, test in TESTED_PAGES.items():
        assert page in (ROOT / test).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_links_and_entry_points_exist(page):
    text = TEXTS[page.name]
    known = {option.name for command in make_reference.all_commands().values() for option in command.params}
    assert set(re.findall(r"-P\s(\w+)=", text)) <= known
    assert set(re.findall(r"mlflow run \S+.*? -e (\w+)", text)) <= set(ENTRY_POINTS)
    for target in re.findall(r"\]\(([^): ]+)\)|src=\"([^\":]+)\"", text):
        name, _, anchor = "".join(target).partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text().lower(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}, target


def test_the_readme_shows_every_entry_point_and_links_to_every_page():
    assert set(re.findall(r"mlflow run \S+.*? -e (\w+)", README)) == set(ENTRY_POINTS) - {"main"}
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in README, page.name


def test_pages_link_to_running_without_conda_before_their_first_mlflow_run():
    for page in PAGES[1:]:
        runs = any(command.text.startswith("mlflow run .") for command in commands(page))
        if runs and page.name != "mlflow-run.md":
            text = TEXTS[page.name]
            assert 0 < text.find("](mlflow-run.md)") < text.index("\nmlflow run ."), page.name


def test_the_lock_has_every_dependency_and_conda_env_points_to_it():
    text, lock = ((ROOT / name).read_text() for name in ("conda.yaml", "requirements.lock"))
    assert f"# lock: {hashlib.sha256(lock.encode()).hexdigest()[:16]}\n" in text
    assert {"pip": ["-r requirements.lock"]} in yaml.safe_load(text)["dependencies"]
    for line in lock.splitlines():
        assert re.match(r"[A-Za-z0-9._-]+==[^\s/]+( ; .+)?$", line), line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {line.split("==")[0] for line in lock.splitlines()}
    optional = project["optional-dependencies"]
    extras = [name for extra in optional if extra != "sed" for name in optional[extra]]  # it is installed beside fsat
    assert {re.match(r"[\w.-]+", name)[0] for name in [*project["dependencies"], *extras]} <= locked


def test_the_version_is_released_in_the_changelog_and_in_the_citation():
    assert re.search(rf"^## {re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
