"""What the commands share: arguments, recipes with settings over them, a command as a report shows it."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from einthoven.config import Recipe

StudyPath = Annotated[Path, typer.Argument(help="the study directory")]
ModelPath = Annotated[Path, typer.Argument(help="the model directory")]
RecipePath = Annotated[Path | None, typer.Option("--recipe", help="a TOML recipe; without it the defaults")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="a setting over the recipe's, e.g. pairing.codes_after=0; may be repeated"),
]

Replacing = Annotated[bool, typer.Option("--replace", help="in place of a study that was made with other settings")]


def recipe_of(path: Path | None, settings: list[str] | None = None) -> "Recipe":
    from einthoven.config import load_recipe

    return load_recipe(path, settings or ())


def command_line(arguments: list[str]) -> str:
    """The command as a report shows it: of a connection string, which may hold a password, only its kind."""
    return shlex.join(["einthoven", *(re.sub(r"^(.*?://).*", r"\1…", argument) for argument in arguments)])
