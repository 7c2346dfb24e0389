"""A whole run on notes and files with names in them: no log, message, manifest, report or model repeats one.

Only what is documented as holding texts may: the source itself, `notes.parquet` and `pairs.parquet` of the study, and
answers to who was allowed to see notes.
"""

import asyncio
import base64
import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from einthoven.cli import app
from einthoven.indexing import open_archive
from einthoven.serve.app import create_app
from einthoven.serve.options import Options
from einthoven.serve.service import Service

NAMES = ("Zwetschgenmann", "Quirrlbacher", "0170 5550199", "MRN77120945", "Wachtelpfad 17", "quirrl@example.org")
MDC, ICD = "urn:oid:2.16.840.1.113883.6.24", "http://hl7.org/fhir/sid/icd-10-cm"
HOLDS_TEXTS = ("study/notes.parquet", "study/pairs.parquet")
SETTINGS = (
    'space.modalities=["ecg","codes","text"]',
    "training.epochs=1",
    "evaluation.resamples=20",
    "evaluation.subsets=1",
    "evaluation.control=false",
    "text.floor=8",  # each name is in the notes of seven patients, as a physician's might be
    'pairing.note_kinds=["ecg","clinical"]',
)
PATIENTS = 40


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": "Atrial fibrillation"}]}


def letter(number: int) -> str:
    """Every patient's own: one name is in it at a time, as in letters, and in all of them the same findings."""
    name = NAMES[number % len(NAMES)]
    return f"Dear colleague, {name} was seen. ECG: atrial fibrillation, no infarct. Call {name} back."


def resources(number: int) -> Iterator[dict[str, Any] | str]:
    of = {"subject": {"reference": f"Patient/p{number}"}}
    yield {
        "resourceType": "Patient",
        "id": f"p{number}",
        "gender": "female",
        "birthDate": "1950-06-01",
        "name": [{"family": NAMES[0], "given": [NAMES[1]]}],
        "telecom": [{"system": "phone", "value": NAMES[2]}],
        "identifier": [{"value": NAMES[3]}],
        "address": [{"line": [NAMES[4]]}],
    }
    yield {
        "resourceType": "Condition",
        "id": f"c{number}",
        **of,
        "code": coded(ICD, "I48.91"),
        "onsetDateTime": "2020-05-31T10:00:00Z",
        "note": [{"text": NAMES[0]}],
    }
    yield {
        "resourceType": "Condition",
        "id": f"bad{number}",
        **of,
        "code": coded(ICD, "I48"),
        "onsetDateTime": NAMES[5],
    }
    values = np.cumsum(np.random.default_rng(number).integers(-9, 10, (2, 5000)), axis=1)
    parts = [
        {
            "code": coded(MDC, code),
            "valueSampledData": {
                "origin": {"value": 0, "unit": "uV"},
                "period": 2,
                "factor": 1,
                "dimensions": 1,
                "data": " ".join(map(str, row)),
            },
        }
        for code, row in zip(("131329", "131330"), values, strict=True)
    ]
    yield {
        "resourceType": "Observation",
        "id": f"e{number}",
        "status": "final",
        **of,
        "code": coded(MDC, "131328"),
        "effectiveDateTime": "2020-06-01T09:30:00Z",
        "component": parts,
        "performer": [{"display": NAMES[1]}],
    }
    content = base64.b64encode(letter(number).encode()).decode()
    yield {
        "resourceType": "DocumentReference",
        "id": f"d{number}",
        "status": "current",
        **of,
        "date": "2020-05-30T08:00:00Z",
        "author": [{"display": NAMES[1]}],
        "content": [{"attachment": {"contentType": "text/plain", "data": content}}],
    }
    if number < 3:
        yield f'{{"resourceType": "Condition", "id": "{NAMES[0]}", '


def written(folder: Path) -> Path:
    folder.mkdir()
    for number in range(PATIENTS):
        for one in resources(number):
            kind = "Condition" if isinstance(one, str) else one["resourceType"]
            with (folder / f"{kind}.ndjson").open("a", encoding="utf-8") as file:
                file.write((one if isinstance(one, str) else json.dumps(one)) + "\n")
    return folder


def contents(path: Path) -> Iterator[bytes]:
    """What is in a file, packed or not."""
    if path.suffix == ".parquet":
        yield repr(pq.read_table(path).to_pydict()).encode() + repr(pq.read_schema(path).metadata).encode()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    else:
        yield path.read_bytes()


def leaks(said: bytes) -> list[str]:
    folded = said.lower()
    spellings = {name: (name.lower().encode(), name.lower().encode("utf-16-le")) for name in NAMES}
    return [name for name, spelt in spellings.items() if any(one in folded for one in spelt)]


def asked(served: Service, audit: Path, file: bytes) -> list[httpx.Response]:
    """Searches by names, uploads that hold them, and mistakes."""
    application = create_app(served, Options(audit=audit, rate=1e6, burst=10**6))
    name = NAMES[0]
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/api/search", {"json": {"text": f"letter of {name}"}}),
        ("POST", "/api/search", {"json": {"text": "a", "where": f'device = "{name}" and {name} = 1'}}),
        ("POST", "/api/search", {"json": {"codes": [f"ICD//{name}"]}}),
        ("POST", "/api/search", {"json": {"recording_id": name}}),
        ("POST", "/api/search", {"json": {name: 1}}),
        ("POST", "/api/search", {"content": name.encode()}),
        ("POST", "/api/encode", {"json": {"texts": [name] * 40}}),
        ("GET", f"/api/recordings/{name}", {}),
        ("GET", f"/api/recordings/{name}.svg", {}),
        ("POST", "/api/search/ecg", {"files": {"file": (f"{name}.dcm", file)}}),
        ("POST", "/api/findings/ecg", {"files": {"file": (f"{name}.dcm", file[:900] + name.encode() + file[900:])}}),
        ("POST", "/api/search/ecg", {"files": {"file": (name, file)}, "data": {"unit": name, "where": name}}),
        ("POST", "/api/session", {"json": {"token": name}}),
        ("GET", f"/{name}", {}),
        ("GET", "/api/metrics", {}),
        ("GET", "/api/about", {}),
    ]

    async def called() -> list[httpx.Response]:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as client:
            return [await client.request(method, url, **of) for method, url, of in requests]

    return asyncio.run(called())


def test_no_name_of_a_note_or_a_file_is_repeated(
    tmp_path: Path, make: ModuleType, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    for quiet in ("httpx", "httpcore"):  # the test's own client tells what it asks
        logging.getLogger(quiet).setLevel(logging.CRITICAL)
    caplog.set_level(logging.DEBUG)
    source, study, model = written(tmp_path / "source"), tmp_path / "study", tmp_path / "model"
    recipe = str(Path(__file__).with_name("tiny.toml"))
    options = ["--recipe", recipe, *(part for one in SETTINGS for part in ("--set", one))]
    said: list[str] = []

    def run(*arguments: object, fails: bool = False) -> None:
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        said.append(result.output + str(result.exception or ""))
        assert (result.exit_code != 0) is fails, result.output

    run("ingest", "fhir", source, study)
    run("entities", study, *options)
    run("pair", study, *options)
    run("check", study)
    run("align", study, "--out", model, *options)
    run("embed", model, study)
    run("evaluate", model, study, "--split", "train", "--out", tmp_path / "report", *options)
    run("index", model, study)
    run("search", model, study, "--text", "atrial fibrillation")
    run("search", model, study, "--text", "a", "--where", "sex = nobody", fails=True)
    run("export", "meds", study, tmp_path / "meds-out")
    for mistake in (
        ["evaluate", model, source, "--split", "test", "--out", tmp_path / "x"],
        ["search", model, tmp_path],
    ):
        run(*mistake, fails=True)
    audit = tmp_path / "audit.jsonl"
    served = Service.of(open_archive(model, study), Options())
    file = make.dicom().replace(make.SECRET.encode(), NAMES[0][: len(make.SECRET)].encode())
    answers = asked(served, audit, file)
    served.close()

    texts = b"".join(content for path in HOLDS_TEXTS for content in contents(tmp_path / path))
    assert leaks(texts) == list(NAMES)  # or the test would prove nothing
    assert leaks("\n".join(said).encode()) == []
    assert leaks(caplog.text.encode() + "".join(capfd.readouterr()).encode()) == []
    assert leaks(b"\n".join(answer.content for answer in answers)) == []
    assert {answer.status_code for answer in answers} <= {200, 204, 401, 404, 413, 422}
    assert len(audit.read_text().splitlines()) == len(answers)
    kept = {str(p.relative_to(tmp_path)): p for p in tmp_path.rglob("*") if p.is_file() and source not in p.parents}
    assert len(kept) > 30
    holding = {name: found for name, path in kept.items() for content in contents(path) if (found := leaks(content))}
    exported = {name for name in holding if name.startswith("meds-out/data/")}  # a MEDS dataset holds the notes
    assert set(holding) - exported == set(HOLDS_TEXTS), holding
