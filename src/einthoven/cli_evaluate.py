"""The commands that measure a model, and set its outlier threshold."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven import pipeline
from einthoven.cli_arguments import ModelPath, RecipePath, Settings, StudyPath, command_line, recipe_of
from einthoven.terminal import print_outliers, print_report, say, shown

if TYPE_CHECKING:
    from einthoven.config import Recipe


def evaluate(
    model: Annotated[Path, typer.Argument(help="a model directory, or an .npz of any model's embeddings")],
    study: StudyPath,
    out: Annotated[Path, typer.Option("--out", help="directory for metrics.json, report.html, scores")],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Measure a model, or embeddings, on one split: retrieval, zero-shot, linear probes, an untrained control."""
    command = ["einthoven", "evaluate", str(model), str(study), "--split", split, "--out", str(out)]
    command += ["--recipe", str(recipe)] if recipe is not None else []
    command += [part for setting in settings or () for part in ("--set", setting)]
    run_evaluation(model, study, split, out, recipe_of(recipe, settings), shlex.join(command))


def run_evaluation(model: Path, study: Path, split: str, out: Path, recipe: "Recipe", command: str) -> None:
    with shown("evaluate") as progress:
        outcome = pipeline.evaluate(model, study, split, out, recipe.evaluation, command, progress)
    say("evaluate", outcome)
    print_report(out)


def outliers(
    model: ModelPath,
    study: StudyPath,
    out: Annotated[Path, typer.Option("--out", help="directory for outliers.json and outliers.html")],
    split: Annotated[str, typer.Option(help="the split that is usual: train, validation or test")] = "validation",
    other: Annotated[list[Path] | None, typer.Option(help="a study of outliers; may be repeated")] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="a classifier (`einthoven finetune`) whose encoder is measured beside the model's"),
    ] = None,
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Measure how well a model's detectors tell corrupted recordings, and those of other studies."""
    command = command_line(sys.argv[1:])
    with shown("outliers") as progress:
        options = recipe_of(recipe, settings).evaluation
        outcome = pipeline.outliers(model, study, split, other or (), out, options, command, progress, against)
    say("outliers", outcome)
    print_outliers(out)


def calibrate(model: ModelPath, study: StudyPath, recipe: RecipePath = None, settings: Settings = None) -> None:
    """Fit a model's outlier detectors anew: on another study, or with another detector or rate of false alarms."""
    with shown("calibrate") as progress:
        outcome = pipeline.calibrate(model, study, recipe_of(recipe, settings).evaluation, progress)
    say("calibrate", outcome)
