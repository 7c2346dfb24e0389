import asyncio
import io
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from scipy.special import expit

from einthoven import schema
from einthoven.embed import matrix, table_of
from einthoven.evaluation.zeroshot import PROMPTS, prompt_scores
from einthoven.indexing import forget
from einthoven.schema import LEADS
from einthoven.search.archive import Archive
from einthoven.serve.app import create_app
from einthoven.serve.charts import Charts
from einthoven.serve.options import MAX_CODES, MAX_TEXT, MAX_TEXTS, MAX_TOP, Options
from einthoven.serve.service import Service
from einthoven.serve.verdicts import Verdicts, reworded
from einthoven.training.probes import FILE, load_probes
from einthoven.waveforms.standardise import to_millivolts
from einthoven.waveforms.store import Store

Ask = Callable[..., Any]
TEXT = "atrial fibrillation"
OPEN = Options(rate=1e6, burst=10**6)


def embedded(archive: Archive) -> Any:
    return pq.read_table(table_of(archive.directory).at(archive.study))


def upload(signal: Any, rate: float = 500, **form: Any) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, signal)
    form = {"sampling_rate": rate, "unit": "mV", "leads": ",".join(LEADS), **form}
    return {"files": {"file": ("ecg.npy", file.getvalue())}, "data": form}


@pytest.fixture(scope="module")
def stored(archive: Archive, recording: str) -> dict[str, Any]:
    """A recording of the study as a file of its own."""
    rows = pq.read_table(schema.RECORDINGS.at(archive.study))
    store = Store.open(archive.study)
    (row,) = rows.filter(pc.equal(rows["recording_id"], recording))["row"].to_pylist()
    return upload(to_millivolts(store.read([row])[0]), store.sampling_rate)


def test_words_find_what_is_nearest_to_them(ask: Ask, archive: Archive) -> None:
    answer = ask("POST", "/api/search", json={"text": TEXT, "top": 5}).json()
    rows = embedded(archive)
    scores = matrix(rows["embedding"]) @ archive.model.encode_text([TEXT])[0]
    best = np.argsort(-scores, kind="stable")[:5]
    assert [hit["recording_id"] for hit in answer["hits"]] == rows["recording_id"].take(best).to_pylist()
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], scores[best], atol=1e-5)
    assert answer["data_kind"] == "simulated" and answer["space"] == "coarse"
    assert all(hit["codes"] and isinstance(hit["outlier"], bool) for hit in answer["hits"])


def test_codes_find_in_the_fine_space(ask: Ask, archive: Archive, problem: Callable[..., Any]) -> None:
    code = next(code for codes in pq.read_table(schema.PAIRS.at(archive.study))["codes"].to_pylist() for code in codes)
    answer = ask("POST", "/api/search", json={"codes": [code], "top": 3}).json()
    scores = matrix(embedded(archive)["fine"]) @ archive.model.encode_codes([[code]])[0]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], np.sort(scores)[::-1][:3], atol=1e-5)
    assert answer["space"] == "fine"
    refused = problem(ask("POST", "/api/search", json={"codes": ["Mustermann"]}))
    assert refused["status"] == 422 and "Mustermann" not in refused["detail"]


def test_a_recording_finds_other_patients(ask: Ask, archive: Archive, recording: str) -> None:
    answer = ask("POST", "/api/search", json={"recording_id": recording, "top": MAX_TOP}).json()
    rows = embedded(archive)
    own = rows.filter(pc.equal(rows["recording_id"], recording))["subject_id"][0].as_py()
    others = rows.filter(pc.not_equal(rows["subject_id"], own))["recording_id"].to_pylist()
    assert sorted(hit["recording_id"] for hit in answer["hits"]) == sorted(others)


def test_a_filter_holds(ask: Ask, problem: Callable[..., Any]) -> None:
    where = {"text": TEXT, "top": MAX_TOP, "where": "sex = female and split = test", "by_patient": True}
    hits = ask("POST", "/api/search", json=where).json()["hits"]
    assert hits and all(hit["sex"] == "female" and hit["split"] == "test" for hit in hits)
    refused = problem(ask("POST", "/api/search", json={**where, "where": "Mustermann = 1"}))
    assert refused["status"] == 422 and "quality" in refused["detail"] and "Mustermann" not in refused["detail"]


def test_embeddings_are_the_models(ask: Ask, archive: Archive) -> None:
    texts = [TEXT, "normal ecg", TEXT]
    answer = ask("POST", "/api/encode", json={"texts": texts}).json()
    np.testing.assert_allclose(answer["embeddings"], archive.model.encode_text(texts), atol=1e-5)
    signal = np.random.default_rng(1).standard_normal((12, 5000)).astype(np.float32)
    answer = ask("POST", "/api/encode/ecg", **upload(signal)).json()
    np.testing.assert_allclose(answer["embeddings"][0], archive.model.encode_ecg(signal, 500), atol=1e-5)


def test_an_uploaded_recording_finds_itself(ask: Ask, recording: str, stored: dict[str, Any]) -> None:
    hits = ask("POST", "/api/search/ecg", **stored).json()["hits"]
    assert hits[0]["recording_id"] == recording and hits[0]["score"] == pytest.approx(1, abs=1e-4)


def test_prompts_drawn_anew_are_those_of_a_naive_loop(archive: Archive) -> None:
    vector, prompts = archive.model.encode_text([TEXT]), Verdicts.of(archive).prompts
    rng, naive = np.random.default_rng(0), []
    for _ in range(5):
        drawn = {}
        for name, of in prompts.items():
            drawn[name] = np.stack([of[i] for i in rng.integers(len(of), size=len(of))])
        naive.append(prompt_scores(vector, drawn)[0])
    # scores are differences of cosines below 1, and single precision has no finer steps there
    np.testing.assert_allclose(reworded(vector, prompts, 5), naive, rtol=0, atol=np.finfo(np.float32).eps)
    assert np.std(naive, axis=0).min() > 0


def test_findings_say_what_prompts_and_probes_say(
    ask: Ask, archive: Archive, recording: str, stored: dict[str, Any]
) -> None:
    answer = ask("POST", "/api/findings", json={"recording_id": recording}).json()
    rows = embedded(archive)
    place = rows["recording_id"].to_pylist().index(recording)
    prompts = {n: archive.model.encode_text([t for ts in of.values() for t in ts]) for n, of in PROMPTS.items()}
    scores = prompt_scores(matrix(rows["embedding"]), prompts)
    classes, series = load_probes(archive.directory / FILE) or ((), {})
    said = {finding["name"]: finding for finding in answer["findings"]}
    assert set(said) == set(PROMPTS) | set(classes) and answer["trained_on"] == "simulated"
    for column, name in enumerate(PROMPTS):
        zero_shot = said[name]["zero_shot"]
        assert zero_shot["score"] == pytest.approx(scores[place, column], abs=1e-4)
        rewordings = reworded(matrix(rows["embedding"])[place][None], prompts)[:, column]
        wanted = np.percentile(rewordings, (2.5, 97.5))
        np.testing.assert_allclose([zero_shot["low"], zero_shot["high"]], wanted, atol=1e-4)
        below = 100 * np.mean(scores[:, column] < scores[place, column])
        assert zero_shot["higher_than"] == pytest.approx(below, abs=1.5)  # of 85; rounding may move it by one
    (whole,) = (probe for probe in series["model"] if probe.fraction == 1)
    for column, name in enumerate(classes):
        if name in whole.unlearnt:
            assert said[name]["probe"] is None
            continue
        probe = said[name]["probe"]
        assert probe["low"] <= probe["probability"] <= probe["high"]
        wanted = expit(whole.scores(matrix(rows["features"]))[place, column])
        assert probe["probability"] == pytest.approx(wanted, abs=1e-4)
    assert isinstance(answer["outlier"]["outlier"], bool)
    again = ask("POST", "/api/findings/ecg", **stored).json()
    assert again["outlier"]["score"] == pytest.approx(answer["outlier"]["score"], abs=1e-3)


def test_a_recording_is_told_with_what_is_around_it(ask: Ask, archive: Archive, recording: str) -> None:
    told = ask("GET", f"/api/recordings/{recording}").json()
    pairs = pq.read_table(schema.PAIRS.at(archive.study))
    (pair,) = pairs.filter(pc.equal(pairs["recording_id"], recording)).to_pylist()
    assert [code["code"] for code in told["codes"]] == pair["codes"]
    assert [code["kind"] for code in told["codes"]] == pair["code_kinds"]
    notes = pq.read_table(schema.NOTES.at(archive.study))
    mine = notes.filter(pc.equal(notes["subject_id"], pair["subject_id"])).to_pylist()
    assert [note["kind"] for note in told["notes"]] == [note["kind"] for note in mine] != []
    assert all(note["text"] is None for note in told["notes"])
    assert told["leads"] == list(LEADS) and told["signal"] and told["findings"]


def test_notes_are_shown_only_where_that_was_asked_for(archive: Archive, ask: Ask, recording: str) -> None:
    hidden = ask("GET", f"/api/recordings/{recording}")
    open_service = Service.of(archive, replace(OPEN, show_notes=True))
    try:
        shown = type(ask)(create_app(open_service, open_service.options))("GET", f"/api/recordings/{recording}").json()
    finally:
        open_service.close()
    texts = [note["text"] for note in shown["notes"]]
    assert texts and all(texts) and not any(text in hidden.text for text in texts)


def test_patients_who_were_forgotten_are_not_told_of(archive: Archive, recording: str, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(archive.study, study)
    (subject,) = archive.index.rows([recording])["subject_id"].to_pylist()
    forget(archive.directory, study, [subject])
    charts = Charts(study, Store.open(study))
    assert recording not in charts and charts.recording(recording) is None and charts.drawing(recording) is None
    rows = pq.read_table(schema.RECORDINGS.at(study))
    others = rows.filter(pc.not_equal(rows["subject_id"], subject))["recording_id"].to_pylist()
    assert all(other in charts for other in others)


def test_a_drawing_is_sent_once(ask: Ask, recording: str) -> None:
    first = ask("GET", f"/api/recordings/{recording}.svg")
    assert first.headers["content-type"] == "image/svg+xml" and first.text.startswith("<svg")
    assert recording not in first.text and "no-cache" in first.headers["cache-control"]
    again = ask("GET", f"/api/recordings/{recording}.svg", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content


@pytest.mark.parametrize("path", ["Mustermann", "Mustermann.svg", "..%2f..%2fetc%2fpasswd", "a%00b", "%2e%2e/x.svg"])
def test_what_is_not_there_is_not_repeated(ask: Ask, problem: Callable[..., Any], path: str) -> None:
    refused = ask("GET", f"/api/recordings/{path}")
    assert problem(refused)["status"] in (404, 422)
    assert "Mustermann" not in refused.text and "passwd" not in refused.text
    assert problem(ask("POST", "/api/findings", json={"recording_id": path}))["status"] == 404


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("search", {"text": "Mustermann" * MAX_TEXT}),
        ("search", {"text": " "}),
        ("search", {"text": "Mustermann", "codes": ["SCP//AFIB"]}),
        ("search", {}),
        ("search", {"text": "Mustermann", "top": 0}),
        ("search", {"text": "Mustermann", "top": MAX_TOP + 1}),
        ("search", {"text": "Mustermann\x00"}),
        ("search", {"codes": ["Mustermann"] * (MAX_CODES + 1)}),
        ("search", {"text": "x", "Mustermann": 1}),
        ("search", {"text": {"Mustermann": 1}}),
        ("encode", {"texts": ["Mustermann"] * (MAX_TEXTS + 1)}),
        ("encode", {"texts": []}),
        ("encode", {}),
        ("findings", {"recording_id": "Mustermann" * 100}),
    ],
)
def test_requests_are_bounded_and_never_repeated(ask: Ask, problem: Callable[..., Any], url: str, body: Any) -> None:
    refused = ask("POST", f"/api/{url}", json=body)
    assert problem(refused)["status"] == 422 and "Mustermann" not in refused.text


def test_no_body_brings_a_traceback(ask: Ask, problem: Callable[..., Any]) -> None:
    for content in (b"", b"Mustermann", b"[" * 20_000, b'{"text": "\\ud800"}', b'{"top": 1e999}', b"\xff\xfe"):
        refused = ask("POST", "/api/search", content=content, headers={"Content-Type": "application/json"})
        assert problem(refused)["status"] in (400, 422) and "Mustermann" not in refused.text, content[:20]


def test_a_failure_tells_nothing(
    served: Callable[..., Any], service: Service, problem: Callable[..., Any], caplog: Any, monkeypatch: Any
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Mustermann, Erika")

    monkeypatch.setattr(service.charts, "recording", fail)
    answer = served()("GET", f"/api/recordings/{next(iter(service.charts._place))}")
    assert problem(answer)["status"] == 500 and "Mustermann" not in answer.text
    assert "RuntimeError" in caplog.text and "Mustermann" not in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_where_too_much_waits_there_is_503(archive: Archive, ask: Ask, problem: Callable[..., Any]) -> None:
    options = replace(OPEN, queue=2)
    small = Service.of(archive, options)
    begun, go = threading.Event(), threading.Event()

    def held() -> None:
        begun.set()
        go.wait(20)

    async def requests(caller: Any) -> list[Any]:
        holding = asyncio.create_task(small._index.do(held))  # the thread of the index has something to do
        await asyncio.to_thread(begun.wait, 20)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(caller.app), base_url=caller.base) as client:
            body = {"json": {"recording_id": next(iter(small.charts._place))}}
            waiting = [asyncio.create_task(client.post("/api/search", **body)) for _ in range(6)]
            refused, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            while len(refused) < 4:
                refused, _ = await asyncio.wait(waiting, timeout=0.01)
            go.set()
            await holding
            return list(await asyncio.gather(*waiting))

    answers = asyncio.run(requests(type(ask)(create_app(small, options))))
    small.close()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
    for answer in answers:
        if answer.status_code == 503:
            assert problem(answer)["detail"] and answer.headers["retry-after"] == "1"


def test_many_texts_at_once_are_answered_alike(ask: Ask, service: Service) -> None:
    alone = [ask("POST", "/api/search", json={"text": f"text {i}", "top": 3}).json() for i in range(12)]
    together = ask.together([("POST", "/api/search", {"json": {"text": f"text {i}", "top": 3}}) for i in range(12)])
    for one, other in zip(alone, together, strict=True):
        assert [h["recording_id"] for h in one["hits"]] == [h["recording_id"] for h in other.json()["hits"]]
        np.testing.assert_allclose(*([h["score"] for h in a["hits"]] for a in (one, other.json())), atol=1e-5)
    counted = re.findall(r'einthoven_batch_size_bucket{le="([^"]+)"} (\d+)', service.metrics.text())
    assert int(counted[-1][1]) > int(counted[0][1])  # some batches held more than one request


def test_metrics_count_what_was_asked(served: Callable[..., Any], service: Service) -> None:
    ask = served()

    def count(line: str) -> int:
        found = re.search(re.escape(line) + r" (\d+)", ask("GET", "/api/metrics").text)
        return int(found[1]) if found else 0

    line = 'einthoven_requests_total{method="GET",route="/api/recordings/{recording_id}",status="404"}'
    before = count(line)
    ask("GET", "/api/recordings/Mustermann")
    assert count(line) == before + 1
    text = ask("GET", "/api/metrics").text
    assert "Mustermann" not in text and 'einthoven_waiting{lane="model"} 0' in text
    ask("GET", "/Mustermann")
    assert 'route="unmatched"' in ask("GET", "/api/metrics").text


def test_the_api_is_what_it_says_it_is(archive: Archive, recording: str) -> None:
    """Every operation, with valid and invalid requests made from the OpenAPI document."""
    named = replace(OPEN, names=("testserver",))
    service = Service.of(archive, named)  # of its own: the test's client ends it
    document = schemathesis.openapi.from_asgi("/api/openapi.json", create_app(service, named))
    checks = [
        not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
        negative_data_rejection,
    ]  # fmt: skip
    quick = settings(
        max_examples=6, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    statuses: Counter[int] = Counter()

    def called(case: Any) -> None:
        statuses[case.call_and_validate(checks=checks).status_code] += 1

    def named_well(case: Any) -> None:  # no generator finds the id of a recording
        case.path_parameters |= dict.fromkeys(case.path_parameters, recording)
        if isinstance(case.body, dict) and case.body.get("recording_id"):
            case.body["recording_id"] = recording
        called(case)

    ways = {GenerationMode.POSITIVE: named_well, GenerationMode.NEGATIVE: called}
    for result in document.get_all_operations():
        for mode, call in ways.items():
            with suppress(Unsatisfiable):  # nothing about this operation could be wrong
                quick(given(case=result.ok().as_strategy(generation_mode=mode))(call))()
    assert statuses[200] > 15 and statuses[422] > 20 and statuses[204], statuses
    service.close()
