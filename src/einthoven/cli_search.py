"""The commands that make an index and ask it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli_arguments import ModelPath, StudyPath
from einthoven.errors import EinthovenError
from einthoven.terminal import print_hits, say, shown

if TYPE_CHECKING:
    from einthoven.search.archive import Query


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    commands: tuple[Callable[..., None], ...] = (index, search, forget)
    for command in commands:
        app.command()(command)


def index(
    model: ModelPath,
    study: StudyPath,
    backend: Annotated[
        str | None, typer.Option(help="exact, lance, s3://… (or gs, az, file), or the http(s) URL of a Qdrant server")
    ] = None,
) -> None:
    """Make the index of a study, which `search` and `serve` ask; they make an exact one where there is none."""
    from einthoven import indexing  # slow to import, as all below

    with shown("index") as progress:
        outcome = indexing.index(model, study, backend, progress)
    say("index", outcome)


def forget(
    model: ModelPath,
    study: StudyPath,
    subject: Annotated[list[int], typer.Option("--subject", help="the id of a patient; may be repeated")],
) -> None:
    """Take a patient out of the index for good; the study's own tables stay as they are."""
    from einthoven import indexing

    say("forget", indexing.forget(model, study, subject))


def search(
    model: ModelPath,
    study: StudyPath,
    text: Annotated[str | None, typer.Option("--text", help="what to look for, in words")] = None,
    code: Annotated[list[str] | None, typer.Option("--code", help="a code, e.g. SCP//AFIB; may be repeated")] = None,
    ecg: Annotated[Path | None, typer.Option("--ecg", help="a file with an ECG, in any format")] = None,
    rate: Annotated[float | None, typer.Option(help="hertz of --ecg, if the file does not state it")] = None,
    unit: Annotated[str | None, typer.Option(help="mV, uV, nV or V of --ecg, if the file does not state it")] = None,
    leads: Annotated[str | None, typer.Option(help="leads of --ecg, e.g. I,II,V1, if it does not state them")] = None,
    recording: Annotated[str | None, typer.Option("--recording", help="the id of a recording of the study")] = None,
    where: Annotated[str | None, typer.Option(help='e.g. "sex = female and age >= 60 and finding = SCP//AFIB"')] = None,
    top: Annotated[int, typer.Option(min=1, help="how many recordings")] = 10,
    split: Annotated[str | None, typer.Option(help="only this split")] = None,
    by_patient: Annotated[bool, typer.Option("--by-patient", help="of each patient only the best")] = False,
    same_patient: Annotated[
        bool, typer.Option("--same-patient", help="with --recording: the patient's others too")
    ] = False,
    space: Annotated[str | None, typer.Option(help="coarse, where text is, or fine, where codes are")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Find the recordings that fit words, codes or another ECG best."""
    from einthoven import indexing
    from einthoven.pipeline import check_split
    from einthoven.search.archive import Query
    from einthoven.search.filters import Clause, parse

    if split is not None:
        check_split(split)
    if space not in (None, "coarse", "fine"):
        raise EinthovenError(f"--space {space}: expected coarse or fine.")
    clauses = parse(where) + ((Clause("split", "=", (split,)),) if split is not None else ())
    asked: dict[str, Any] = {"text": text, "codes": tuple(code or ()), "recording_id": recording, "ecg": None}
    if sum(bool(part) or part == "" for part in (text, code, recording, ecg)) != 1:
        raise EinthovenError("search: expected exactly one of --text, --code, --ecg and --recording.")
    if ecg is not None:
        from einthoven.waveforms.formats import read_ecg

        named = None if leads is None else tuple(lead.strip() for lead in leads.split(","))
        asked["ecg"] = read_ecg(ecg, sampling_rate=rate, unit=unit, leads=named)
    query = Query(**asked, top=top, where=clauses, space=space, by_patient=by_patient, other_patients=not same_patient)
    archive = indexing.open_archive(model, study)
    answer = archive.search(query)
    if as_json:
        typer.echo(json.dumps({"data_kind": archive.data_kind, **asdict(answer)}, default=str, ensure_ascii=False))
    else:
        print_hits(answer, told(query, ecg), archive.data_kind)


def told(query: "Query", file: Path | None = None) -> str:
    """A query as a title."""
    if query.text is not None:
        return f"“{query.text}”"
    named: Any = query.codes and " + ".join(query.codes)
    return str(named or query.recording_id or (file and file.name))
