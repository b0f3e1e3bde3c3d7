"""MLflow's own page, in a real browser: the view that compares studies, descriptions, and what a person has written.

The runs are made up, by the functions that the pipeline names, describes and colours them with; nothing is trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from browser import Visit, chromium
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from servers import MlflowServer

from fsat.config import Config
from fsat.reports import run_descriptions
from fsat.text import LIMIT, dataset_name, fold_name
from fsat.tracking import descriptions, runs, shared_view

pytestmark = pytest.mark.browser

STUDIES = {"dummy1d": "551eec6cc9", "conv1d": "082642a8b6"}
FOLDS, EPOCHS = 2, 4
DATA = Path("/data/clips `x` <b>")
"""Named so that Markdown and HTML would show it otherwise."""

QUIET = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
"""Puts MLflow's assistant aside."""

HARMLESS = ("AG Grid: since v27.1, `", "[.WebGL-", "Failed to load resource: the server responded with a status of 404")
"""How complaints of MLflow's own page begin, as it stands, and of Chromium where it draws without a graphics card."""


def tagger(**more) -> run_descriptions.Tagger:
    """Facts of an ensemble."""
    facts = {
        "models": list(STUDIES), "studies": list(STUDIES.values()), "n_members": 4, "n_labels": 12,
        "data_dir": str(DATA), "blend": "geometric", "scores": {"oof_map3": 0.8904, "oof_acc": 0.7815},
        "selected_on": "own fold+holdout", "name": "fsat", "version": 1,
        "outcome": "fsat version 1 is now champion: there was none",
    }  # fmt: skip
    return run_descriptions.Tagger(**{**facts, **more})


@dataclass
class Store:
    """A server with runs.

    Attributes:
        server: it.
        view: what `share_view` gave.
        folds: ids of fold runs by model.
        notes: descriptions while the folds were trained, by run.
        made: id of the ensemble's run.
    """

    server: MlflowServer
    view: str = ""
    folds: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    made: str = ""

    def note(self, run_id: str) -> str:
        """A run's description now."""
        return mlflow.get_run(run_id).data.tags.get(descriptions.NOTE, "")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    """A server, and on it what two cross-validations and an ensemble leave; they were written to its database."""
    folder = tmp_path_factory.mktemp("server")
    server = MlflowServer(folder, environment={"MLFLOW_DISABLE_TELEMETRY": "true"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/server.db")
        made = Store(server)
        for model, study in STUDIES.items():
            made.folds[model] = cross_validation(made, model, study)
        with runs.tracked("ensemble", f"ensemble of {' + '.join(STUDIES)} on {dataset_name(DATA)}") as run_id:
            client, made.made = mlflow.MlflowClient(), run_id
            client.create_registered_model("fsat")
            mlflow.log_text(f"run_id: {run_id}\nflavors: {{}}\n", "tagger/MLmodel")
            client.create_model_version("fsat", mlflow.get_artifact_uri("tagger"), run_id)
            descriptions.describe_tagger(tagger())
        with server:
            mlflow.set_tracking_uri(server.uri)
            made.view = descriptions.share_view()
            yield made
        mlflow.set_tracking_uri(None)


def cross_validation(store: Store, model: str, study: str) -> list[str]:
    """Runs of a study, as `fsat.commands.train` opens them; ids of the folds."""
    config, run_ids = Config.resolve({"model": model, "n_folds": FOLDS, "learning_rate": 0.0005}), []
    with runs.tracked("cross_validate", f"{model} all folds on {dataset_name(DATA)}"):
        runs.set_tags({"study": study, "model": model})
        descriptions.give_colour(study)
        runs.log_metrics({"mean_val_map3": 0.5})
        for fold in range(FOLDS):
            with runs.tracked("train_fold", fold_name(model, fold, DATA)) as run_id:
                tags = {"study": study, "fold": fold, "model": model, "data_dir": DATA, "selected_on": "own fold"}
                runs.set_tags(tags)
                runs.log_params({**config.to_dict(), "fold": fold, "n_train": 24, "n_val": 12})
                descriptions.give_colour(study)
                descriptions.describe_fold(run_id)
                store.notes[run_id] = store.note(run_id)
                for epoch in range(EPOCHS):
                    better = (epoch + 1) / EPOCHS if model == "conv1d" else 0.1
                    runs.log_metrics({"val_map3": 0.1 + 0.8 * better, "val_loss": 2.0 - better}, epoch)
                final = {"val_map3": 0.9 if model == "conv1d" else 0.18, "val_acc": 0.1, "best_epoch": 3}
                runs.log_metrics({**final, "train_seconds": 61.5}, EPOCHS)
                descriptions.describe_fold(run_id, final)
                run_ids.append(run_id)
    return run_ids


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("nothing") / "heard.wav") as opened:
        yield opened


@pytest.fixture
def visit(store, browser) -> Iterator[Visit]:
    """A window on MLflow's page, of somebody who has put its assistant aside; nothing may go elsewhere."""
    visit, missing = Visit(browser, "about:blank", viewport={"width": 1600, "height": 1000}), set()
    visit.page.on("response", lambda answer: answer.status == 404 and missing.add(urlsplit(answer.url).path))
    visit.page.add_init_script(QUIET)
    visit.page.set_default_timeout(60_000)
    yield visit
    visit.page.close()
    assert visit.hosts == {store.server.uri.removeprefix("http://")}
    assert missing <= {"/ajax-api/2.0/mlflow/users/current"}  # which a server without users does not know
    assert [text for text in visit.complaints if not text.partition(": ")[2].startswith(HARMLESS)] == []


def test_the_link_shows_curves_and_bars_in_one_colour_a_study(store, visit):
    assert store.view.startswith(f"{store.server.uri}/#/experiments/0/runs?")
    visit.page.goto(store.view)
    charts = visit.page.locator(".js-plotly-plot")
    charts.nth(2).locator(".barlayer .point").nth(3).wait_for()
    given = {model: {colour(run_id) for run_id in run_ids} for model, run_ids in store.folds.items()}
    assert [len(colours) for colours in given.values()] == [1, 1]
    expected = set.union(*given.values())
    assert len(expected) == 2
    lines = charts.nth(0).locator(".scatterlayer .trace path.js-line")
    assert lines.count() >= 2 * FOLDS
    assert set(lines.evaluate_all(f"found => found.map(line => ({HEXADECIMAL})(line.style.stroke))")) == expected
    bars = charts.nth(2).locator(".barlayer .point path")
    assert bars.count() == 2 * FOLDS
    assert set(bars.evaluate_all(f"found => found.map(bar => ({HEXADECIMAL})(bar.style.fill))")) == expected


HEXADECIMAL = "rgb => '#' + rgb.match(/\\d+/g).slice(0, 3).map(x => (+x).toString(16).padStart(2, '0')).join('')"
"""JavaScript: a colour as MLflow's tag has it."""


def colour(run_id: str) -> str:
    return mlflow.get_run(run_id).data.tags[shared_view.COLOUR_TAG]


def test_its_table_has_the_folds_alone_and_the_columns_that_one_compares(store, visit):
    visit.page.goto(store.view.replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
    visit.page.get_by_text("dummy1d fold 1 on", exact=False).first.wait_for()
    table = visit.page.locator(".ag-root").first.inner_text()
    for column in ("fsat.model", "fsat.fold", "val_map3", "val_acc", "best_epoch", "train_seconds", "fsat.study"):
        assert column in table, column
    assert "Duration" in table
    assert "all folds" not in table
    names = [line for line in table.splitlines() if " fold " in line]
    assert [name.split()[0] for name in names] == ["conv1d"] * 2 + ["dummy1d"] * 2  # the best first
    assert set(STUDIES.values()) <= set(table.split())


def test_whoever_opens_the_experiment_finds_the_view(store, visit):
    visit.page.goto(f"{store.server.uri}/#/experiments/0/runs")
    visit.page.get_by_role("button", name="Views").wait_for()
    with visit.page.context.expect_page() as opened:  # MLflow opens links of descriptions beside
        visit.page.get_by_role("link", name="Compare all folds").click()
    opened.value.get_by_role("button", name=shared_view.NAME).wait_for()  # in the list of views, and chosen
    opened.value.locator(".js-plotly-plot").first.wait_for()
    opened.value.close()


def test_a_folds_page_says_what_it_is(store, visit):
    run_id = store.folds["conv1d"][1]
    visit.page.goto(f"{store.server.uri}/#/experiments/0/runs/{run_id}")
    visit.page.get_by_text("conv1d, fold 1").wait_for()
    visit.page.get_by_text("Show more").click()
    text = visit.page.locator("body").inner_text()
    assert "clips 'x' <b>" in text
    assert "learning_rate=0.0005" in text
    assert "val_map3 0.9000" in text
    assert visit.page.get_by_role("link", name="learning curves").count() == 1


def test_so_does_the_page_of_a_version(store, visit):
    visit.page.goto(f"{store.server.uri}/#/models/fsat/versions/1")
    visit.page.get_by_text("a blend of 4 folds of dummy1d + conv1d").wait_for()
    good = visit.page.get_by_role("link", name="How good it is").get_attribute("href")
    assert good == f"#/experiments/0/runs/{store.made}"
    assert store.note(store.made).startswith(
        "fsat version 1 is now champion: there was none. Look at [the whole report]"
    )
    assert mlflow.MlflowClient().get_registered_model("fsat").description.startswith("Taggers made by fsat")


def test_mlflows_own_comparison_of_two_runs(store, visit):
    both = f'["{store.folds["dummy1d"][0]}","{store.folds["conv1d"][0]}"]'
    visit.page.goto(f'{store.server.uri}/#/compare-runs?runs={both}&experiments=["0"]')
    visit.page.get_by_text("Comparing 2 Runs").first.wait_for()
    visit.page.get_by_text("train_seconds").first.wait_for()
    text = visit.page.locator("body").inner_text()
    for word in ("dummy1d fold 0 on", "conv1d fold 0 on", "val_map3", "0.9", "0.18"):
        assert word in text, word
    visit.page.goto(
        f'{store.server.uri}/#/metric?runs={both}&metric="val_map3"&experiments=["0"]&plot_metric_keys=["val_map3"]'
    )
    visit.page.locator(".js-plotly-plot .scatterlayer .trace path.js-line").nth(1).wait_for(state="attached")


def test_a_description_begins_with_the_fold_and_has_its_scores_at_the_end(store):
    (run_id, *_), study = store.folds["dummy1d"], STUDIES["dummy1d"]
    assert store.notes[run_id].startswith("**dummy1d, fold 0** is not finished")
    assert f"Fold 0 of {FOLDS}, counted from 0, of study `{study}`" in store.notes[run_id]
    after = store.note(run_id)
    assert after.startswith("**dummy1d, fold 0**: `val_map3` **0.1800**, `val_acc` **0.1000**.")
    assert "not finished" not in after
    assert "- `val_map3` **0.1800** on the clips that the fold did not train on" in after
    assert "The weights are of epoch 4." in after
    assert f"-P studies={study}`" in after


def test_what_a_person_has_written_stays(store):
    run_id, client = store.folds["dummy1d"][1], mlflow.MlflowClient()
    client.set_tag(run_id, descriptions.NOTE, "a person's words")
    client.set_experiment_tag("0", descriptions.NOTE, "a person's too")
    descriptions.describe_fold(run_id, {"val_map3": 1.0, "best_epoch": 0})
    assert descriptions.share_view() == store.view
    assert store.note(run_id) == "a person's words"
    assert client.get_experiment("0").tags[descriptions.NOTE] == "a person's too"
    client.update_model_version("fsat", "1", "mine")
    with runs.tracked("ensemble", "again"):
        descriptions.describe_tagger(tagger())
    assert client.get_model_version("fsat", "1").description == "mine"


def test_a_view_that_is_there_costs_one_request(store, monkeypatch):
    asked = []
    monkeypatch.setattr(descriptions, "ask", lambda function: asked.append(function) or function())
    descriptions.share_view()
    assert len(asked) == 1


def test_who_may_not_is_warned_once_and_goes_on(store, monkeypatch, capsys):
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(descriptions, "_refused", set())
    for name in ("get_experiment", "log_batch", "get_model_version", "search_runs"):
        monkeypatch.setattr(mlflow.MlflowClient, name, refuse)
    assert descriptions.share_view() == ""
    assert descriptions.share_view() == ""
    descriptions.describe("anything", store.made)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in said] == [
        "warning: cannot keep a view on the experiment", "warning: cannot describe runs",
    ]  # fmt: skip
    assert all("does not permit this to" in line for line in said)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://ann:secret@host:8000/", "Compare the runs at http://host:8000/#/x"),
        ("sqlite:///mlflow.db", "Compare the runs with `mlflow ui`, then open http://127.0.0.1:5000/#/x"),
    ],
)
def test_where_to_compare_has_no_password(uri, said, monkeypatch):
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: uri)
    assert descriptions.how_to_compare(f"{descriptions.page()}#/x") == said


def test_studies_share_a_colour_only_when_there_are_more_than_colours():
    taken: list[str] = []
    for study in range(len(shared_view.COLOURS)):
        taken.insert(0, shared_view.new_colour(f"{study % 3:x}", taken))
    assert sorted(taken) == sorted(shared_view.COLOURS)
    assert shared_view.new_colour("ff", taken) == taken[-1]


def test_passwords_and_long_texts_are_not_kept(store):
    run_id = store.folds["conv1d"][0]
    mlflow.MlflowClient().delete_tag(run_id, descriptions.NOTE)
    descriptions.describe("see http://ann:secret@host/\n" + "a line of words\n" * 1000, run_id)
    text = store.note(run_id)
    assert text.startswith("see http://ann:***@host/\na line of words\n")
    assert LIMIT - 20 < len(text) <= LIMIT
    assert text.endswith("words\n…")
