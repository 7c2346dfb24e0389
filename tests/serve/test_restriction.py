"""`--max-results` and `--round-scores`: in the API, on the page and in what is exported."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from einthoven import cli
from einthoven.indexing import open_archive
from einthoven.serve import command
from einthoven.serve.app import create_app
from einthoven.serve.options import Options
from einthoven.serve.service import Service

MOST, DIGITS = 4, 1


@pytest.fixture(scope="module")
def restricted(trained: tuple[Path, Path]) -> Iterator[Service]:
    service = Service.of(open_archive(*trained), Options(rate=1e6, burst=10**6, max_results=MOST, round_scores=DIGITS))
    yield service
    service.close()


@pytest.fixture(scope="module")
def few(restricted: Service, ask: Any) -> Any:
    return type(ask)(create_app(restricted, restricted.options))


def coarse(value: float) -> bool:
    return round(value, DIGITS) == value


def test_no_more_recordings_than_allowed(few: Any, problem: Callable[..., Any], samples: dict[str, bytes]) -> None:
    said = few("POST", "/api/search", json={"text": "infarct", "top": MOST}).json()
    assert len(said["hits"]) == MOST and few("GET", "/api/about").json()["max_results"] == MOST
    for refused in (
        few("POST", "/api/search", json={"text": "infarct", "top": MOST + 1}),
        few("POST", "/api/search", json={"recording_id": said["hits"][0]["recording_id"], "top": 200}),
        few("POST", "/api/search/ecg", files={"file": samples["CSV"]}, data={"top": "5"}),
    ):
        assert f"{MOST} recordings at most" in problem(refused)["detail"]


def test_the_order_is_that_of_the_exact_scores(few: Any, ask: Any) -> None:
    asked = {"text": "atrial fibrillation", "top": MOST}
    exact, rounded = (of("POST", "/api/search", json=asked).json()["hits"] for of in (ask, few))
    assert [hit["recording_id"] for hit in rounded] == [hit["recording_id"] for hit in exact]
    assert [hit["score"] for hit in rounded] == [round(hit["score"], DIGITS) + 0.0 for hit in exact]
    assert not all(coarse(hit["score"]) for hit in exact)
    like = few("POST", "/api/search", json={"recording_id": exact[0]["recording_id"], "top": 3}).json()["hits"]
    assert all(coarse(hit["score"]) for hit in like)


def test_findings_of_a_recording_are_rounded(few: Any, ask: Any, recording: str) -> None:
    exact, rounded = (of("POST", "/api/findings", json={"recording_id": recording}).json() for of in (ask, few))
    for mine, theirs in zip(rounded["findings"], exact["findings"], strict=True):
        if theirs["zero_shot"] is not None:
            assert all(coarse(mine["zero_shot"][name]) for name in ("score", "low", "high"))
            assert mine["zero_shot"]["higher_than"] == round(theirs["zero_shot"]["higher_than"])
        if theirs["probe"] is not None:
            assert mine["probe"]["probability"] == round(theirs["probe"]["probability"], DIGITS)
    assert coarse(rounded["outlier"]["score"]) and not coarse(exact["outlier"]["score"])


def test_the_page_and_its_exports_tell_no_more(few: Any, recording: str, problem: Callable[..., Any]) -> None:
    place = few("POST", "/search", data={"q": "infarct", "each": "1"}).headers["location"]
    results = few("GET", place).text
    scores = re.findall(r"Score </span>([-0-9.]+)", results)
    assert len(scores) == MOST and all(coarse(float(score)) for score in scores)
    assert f'max="{MOST}" value="{MOST}"' in results and f"among the {MOST} nearest" in results
    name = place.rpartition("/")[2]
    exported = few("POST", "/cohort", data={"search": name, "top": str(MOST), "format": "csv"})
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert len(rows) == MOST and all(coarse(float(row["score"])) for row in rows)
    more = few("POST", "/cohort", data={"search": name, "top": str(MOST + 1), "format": "csv"})
    assert more.status_code == 422 and f"a number from 1 to {MOST}" in more.text
    shown = few("GET", f"/recording/{recording}?search={name}&marked=1").text
    falls = [float(fall) for fall in re.findall(r"<title>[^<]* s: ([-+0-9.]+)</title>", shown)]
    assert falls and all(coarse(fall) for fall in falls)


@pytest.mark.parametrize("count", ["²", "१", "9" * 5000, "0", "-1", ""])
def test_what_is_no_number_of_recordings_is_told(few: Any, count: str) -> None:
    name = few("POST", "/search", data={"q": "infarct"}).headers["location"].rpartition("/")[2]
    assert few("POST", "/cohort", data={"search": name, "top": count, "format": "csv"}).status_code == 422


def test_the_command_takes_both(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []

    def opened(model: Path, study: Path, options: Options) -> FastAPI:
        seen.append(options)
        return FastAPI()

    monkeypatch.setattr(command, "opened", opened)
    monkeypatch.setattr(command, "run", lambda *_: None)
    arguments = ["serve", *map(str, trained), "--port", "0", "--max-results", "20", "--round-scores", "2"]
    cli.app(arguments, standalone_mode=False)
    assert (seen[0].max_results, seen[0].round_scores) == (20, 2)
