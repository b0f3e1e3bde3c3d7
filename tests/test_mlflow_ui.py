"""MLflow's UI in a real browser: the view that compares studies, and the descriptions of runs and versions.

The runs are made by the functions by which the commands name, describe and colour them; nothing is trained.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import mlflow
import pytest
from browser import Visit, chromium
from servers import MlflowServer
from stores import current_store

from fsat.config import Config
from fsat.reports import run_descriptions
from fsat.text import dataset_name, fold_name
from fsat.tracking import mlflow_ui, runs

pytestmark = pytest.mark.browser

STUDIES = {"dummy1d": "551eec6cc9", "conv1d": "082642a8b6"}
FOLDS, EPOCHS = 2, 4
DATA = Path("/data/clips `x` <b>")
"""A name that would be Markdown and HTML if it were not escaped."""

HIDE_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
HARMLESS = ("AG Grid: since v27.1, `", "[.WebGL-", "Failed to load resource: the server responded with a status of 404",
            "null ResizeObserver loop completed")  # fmt: skip
"""Beginnings of console messages of MLflow's own pages, and of Chromium without a graphics card."""

HEXADECIMAL = "rgb => '#' + rgb.match(/\\d+/g).slice(0, 3).map(x => (+x).toString(16).padStart(2, '0')).join('')"
"""JavaScript that turns a colour into the form of MLflow's tag."""

TAGGER = run_descriptions.Tagger(
    models=list(STUDIES), studies=list(STUDIES.values()), n_members=4, n_labels=12, data_dir=str(DATA),
    blend="geometric", scores={"oof_map3": 0.8904, "oof_acc": 0.7815}, selected_on="own fold+holdout", name="fsat",
    version=1, outcome="fsat version 1 is now champion: there was none",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A server with two cross-validations and an ensemble, written to its database: ``uri view folds ensemble``."""
    with current_store(tmp_path_factory.mktemp("server")) as folder:
        folds = {model: cross_validation(model, study) for model, study in STUDIES.items()}
        ensemble = register()
        with MlflowServer(folder, mlflow.get_tracking_uri()) as server:
            mlflow.set_tracking_uri(server.uri)
            with runs.tracked("main", f"main on {dataset_name(DATA)}"):
                view = mlflow_ui.share_view(run_descriptions.experiment(mlflow_ui.view_link()))
            yield SimpleNamespace(uri=server.uri, view=view, folds=folds, ensemble=ensemble)


def cross_validation(model: str, study: str) -> list[str]:
    """Create the runs of a study, as `fsat.commands.train` does; return the ids of the folds."""
    config, run_ids = Config.resolve({"model": model, "n_folds": FOLDS, "learning_rate": 0.0005}), []
    score = 0.9 if model == "conv1d" else 0.18
    with runs.tracked("cross_validate", f"{model} all folds on {dataset_name(DATA)}"):
        runs.set_tags({"study": study, "model": model})
        mlflow_ui.give_colour(study)
        for fold in range(FOLDS):
            with runs.tracked("train_fold", fold_name(model, fold, DATA)) as run_id:
                tags = {"study": study, "fold": fold, "model": model, "data_dir": DATA, "selected_on": "own fold"}
                params = {**config.to_dict(), "fold": fold, "n_train": 24, "n_val": 12}
                final = {"val_map3": score, "val_acc": 0.1, "best_epoch": 3, "train_seconds": 61.5}
                runs.set_tags(tags)
                runs.log_params(params)
                mlflow_ui.give_colour(study)
                for epoch in range(EPOCHS):
                    runs.log_metrics({"val_map3": score * (epoch + 1) / EPOCHS, "val_loss": 2.0 - score}, epoch)
                runs.log_metrics(final, EPOCHS)
                tags = {f"fsat.{name}": str(value) for name, value in tags.items()}
                links = mlflow_ui.run_link("0", run_id), mlflow_ui.view_link()
                mlflow_ui.describe(run_descriptions.fold(params, tags, final, *links))
                run_ids.append(run_id)
    return run_ids


def register() -> str:
    """Create the run of an ensemble and a registered version, as `fsat.commands.ensemble` does; return the run's id."""
    client = mlflow.MlflowClient()
    with runs.tracked("ensemble", f"ensemble of {' + '.join(STUDIES)} on {dataset_name(DATA)}") as run_id:
        client.create_registered_model("fsat")
        mlflow.log_text(f"run_id: {run_id}\nflavors: {{}}\n", "tagger/MLmodel")
        client.create_model_version("fsat", mlflow.get_artifact_uri("tagger"), run_id)
        link = mlflow_ui.run_link("0", run_id)
        mlflow_ui.describe(run_descriptions.ensemble(TAGGER, link, mlflow_ui.view_link()))
        texts = run_descriptions.version(TAGGER, link)
        mlflow_ui.describe_version("fsat", 1, *texts)
    return run_id


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("nothing") / "heard.wav") as opened:
        yield opened


@pytest.fixture
def visit(store, browser) -> Iterator[Visit]:
    """Open a window on MLflow's UI; check its messages and that no request goes elsewhere."""
    visit, missing = Visit(browser, "about:blank", viewport={"width": 1600, "height": 1000}), set()
    visit.page.on("response", lambda answer: answer.status == 404 and missing.add(urlsplit(answer.url).path))
    visit.page.add_init_script(HIDE_ASSISTANT)
    visit.page.set_default_timeout(60_000)
    yield visit
    visit.page.close()
    assert visit.hosts == {store.uri.removeprefix("http://")}
    assert missing <= {"/ajax-api/2.0/mlflow/users/current"}  # a server without users does not have it
    assert [text for text in visit.complaints if not text.partition(": ")[2].startswith(HARMLESS)] == []


def test_the_view_shows_curves_and_bars_in_one_colour_per_study(store, visit):
    assert store.view.startswith(f"{store.uri}/#/experiments/0/runs?")
    visit.page.goto(store.view)
    charts = visit.page.locator(".js-plotly-plot")
    charts.nth(2).locator(".barlayer .point").nth(3).wait_for()
    colour = mlflow_ui.COLOUR_TAG
    by_study = [{mlflow.get_run(run_id).data.tags[colour] for run_id in run_ids} for run_ids in store.folds.values()]
    assert [len(colours) for colours in by_study] == [1, 1]
    expected = set.union(*by_study)
    assert len(expected) == 2
    lines = charts.nth(0).locator(".scatterlayer .trace path.js-line")
    assert lines.count() >= 2 * FOLDS
    assert set(lines.evaluate_all(f"found => found.map(line => ({HEXADECIMAL})(line.style.stroke))")) == expected
    bars = charts.nth(2).locator(".barlayer .point path")
    assert bars.count() == 2 * FOLDS
    assert set(bars.evaluate_all(f"found => found.map(bar => ({HEXADECIMAL})(bar.style.fill))")) == expected


def test_the_table_of_the_view_has_only_folds_and_the_columns_to_compare(store, visit):
    visit.page.goto(store.view.replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
    visit.page.get_by_text("dummy1d fold 1 on", exact=False).first.wait_for()
    table = visit.page.locator(".ag-root").first.inner_text()
    columns = [column.partition("`")[2].rstrip("`") for column in mlflow_ui.VIEW["selectedColumns"]]
    assert [column for column in ("val_lwlrap", "val_map") if column in columns and column not in table]  # of no run
    columns = [column for column in columns if column not in ("val_lwlrap", "val_map")]
    assert [column for column in ("Duration", *columns) if column not in table] == []
    assert "all folds" not in table
    names = [line for line in table.splitlines() if " fold " in line]
    assert [name.split()[0] for name in names] == ["conv1d"] * 2 + ["dummy1d"] * 2  # the best first
    assert set(STUDIES.values()) <= set(table.split())


def test_the_page_of_the_experiment_links_to_the_view(store, visit):
    visit.page.goto(f"{store.uri}/#/experiments/0/runs")
    visit.page.get_by_role("button", name="Views").wait_for()
    with visit.page.context.expect_page() as opened:  # MLflow opens links of descriptions in a new tab
        visit.page.get_by_role("link", name="Compare all folds").click()
    opened.value.get_by_role("button", name=mlflow_ui.VIEW_NAME).wait_for()  # listed and selected
    opened.value.locator(".js-plotly-plot").first.wait_for()
    opened.value.close()


def test_the_pages_of_a_fold_and_of_a_version_describe_them(store, visit):
    visit.page.goto(f"{store.uri}/#/experiments/0/runs/{store.folds['conv1d'][1]}")
    visit.page.get_by_text("conv1d, fold 1").wait_for()
    visit.page.get_by_text("Show more").click()
    text = visit.page.locator("body").inner_text()
    assert [part for part in ("clips 'x' <b>", "learning_rate=0.0005", "val_map3 0.9000") if part not in text] == []
    assert visit.page.get_by_role("link", name="learning curves").count() == 1
    visit.page.goto(f"{store.uri}/#/models/fsat/versions/1")
    visit.page.get_by_text("a blend of 4 folds of dummy1d + conv1d").wait_for()
    report = visit.page.get_by_role("link", name="How good it is").get_attribute("href")
    assert report == f"#/experiments/0/runs/{store.ensemble}"
