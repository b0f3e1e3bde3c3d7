"""Commands that make a tagger: each turns its options into the arguments of a function in `fsat.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli import shared_options as shared
from fsat.model_presets import PRESETS
from fsat.options import NEAR_DUPLICATE, Launch, Thresholds


@click.command("main")
@shared.source_options
@click.option("--models", metavar="A,B,...", help="Models to train. [default: the preset's, else dummy1d,conv1d]")
@shared.options_of(Launch)
@shared.cluster_options
@shared.blend_options
@shared.option("--output", default="tags.csv", metavar="FILE", help="Tags of the test clips, as CSV.")
@shared.option(
    "--dry_run",
    type=bool,
    default=False,
    is_flag=False,
    flag_value=True,
    help="Say what is there and how long it takes.",
)
@shared.config_options
def main_command(models: str | None, output: str, dry_run: bool, **options: Any) -> None:
    """Run all steps: eda, training, ensemble and tags.

    Settings hold for every model; without them each model has its own preset.
    """
    if models is None:
        models = options["model"] or PRESETS.get(options["preset"] or "", {}).get("model", "dummy1d,conv1d")
    names = shared.read_words("models", models)
    launch = shared.read_launch(options)
    configs = [shared.read_config(options, model=name) for name in dict.fromkeys(names)]
    source = shared.read_source(options)
    if dry_run:
        from fsat.commands.estimate import describe_steps

        for line in describe_steps(source, configs):
            click.echo(line)
        return
    from fsat.commands.main import main

    arguments = options["register_as"], options["promote"], Path(output), launch, options["blend"], options["calibrate"]
    click.echo(main(source, configs, *arguments))


@click.command()
@shared.source_options
@click.option("--backbone", metavar="FILE.json|DIR|NAME@DIGEST", help=f"{shared.BACKBONE} Finds near-duplicates.")
@click.option(
    "--near_duplicate",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Cosine of the embeddings of near-duplicates; needs --backbone. [default: {NEAR_DUPLICATE}]",
)
def eda(backbone: str | None, near_duplicate: float | None, **options: Any) -> None:
    """Write a page of a dataset's classes, sounds and faults.

    Prints the run id; eda.html of the run has waveforms, lengths, and all faults of the clips.
    """
    if near_duplicate is not None and backbone is None:
        raise click.UsageError("--near_duplicate has no effect without --backbone; give both, or neither")
    source = shared.read_source(options)
    from fsat.commands.eda import eda

    click.echo(eda(source, backbone, near_duplicate or NEAR_DUPLICATE))


@click.command("train_fold")
@click.option("--fold", type=int, required=True, help="Number of the fold, from 0.")
@shared.source_options
@shared.options_of(Launch, without=("parallel_folds",))
@shared.config_options
def train_fold(fold: int, **options: Any) -> None:
    """Train one fold, or resume it; print its run id.

    A FINISHED fold is not trained again.
    """
    if fold < 0:
        raise click.UsageError(f"--fold {fold}: expected 0 or more")
    launch, config = shared.read_launch(options), shared.read_config(options)
    source = shared.read_source(options)
    from fsat.commands.train import train_fold

    click.echo(train_fold(source, config, fold, launch))


@click.command("cross_validate")
@shared.source_options
@shared.options_of(Launch)
@shared.cluster_options
@shared.config_options
def cross_validate(**options: Any) -> None:
    """Train every fold of a study; print their run ids.

    FINISHED folds are not trained again, and interrupted ones are resumed.
    """
    launch, config = shared.read_launch(options), shared.read_config(options)
    source = shared.read_source(options)
    from fsat.commands.train import cross_validate

    click.echo(",".join(record.run_id for record in cross_validate(source, config, launch)))


@click.command()
@shared.run_options
@shared.blend_options
@shared.option("--allow_incomplete", type=bool, default=False, help="Blend studies with missing folds.")
@click.option("--data_dir", metavar="DIR", help="Folder of the clips that report.html plays. [default: as in training]")
def ensemble(run_ids: str | None, studies: str | None, **options: Any) -> None:
    """Blend fold runs and register the blend as a tagger.

    Prints out-of-fold scores; report.html of the run shows the results.
    """
    words = shared.read_words("run_ids", run_ids), shared.read_words("studies", studies)
    from fsat.commands.ensemble import ensemble

    result = ensemble(*words, **options)
    table = result.scores.drop(columns=["run_id"] if result.scores["leak"].any() else ["run_id", "leak"])
    table = table.dropna(axis="columns", how="all")  # no clip may be verified
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    click.echo(f"ensemble run {result.run_id}")
    click.echo(result.registered.outcome)
    click.echo(result.compare)


@click.command()
@shared.run_options
@shared.options_of(Thresholds)
def verify(run_ids: str | None, studies: str | None, **options: Any) -> None:
    """Accept, replace or drop unverified labels.

    Out-of-fold predictions decide; with task=multi on each label, and missing ones are added. Prints the run id, a
    value for labels_run_id.
    """
    words = shared.read_words("run_ids", run_ids), shared.read_words("studies", studies)
    thresholds = shared.read_options(Thresholds, options)
    from fsat.commands.verify_labels import verify

    click.echo(verify(*words, thresholds).run_id)
