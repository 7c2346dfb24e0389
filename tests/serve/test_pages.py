"""The page without a browser: who may see it, what it never says, what it is made of."""

import hashlib
import html
import re
from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import pytest

from einthoven.serve.charts import Charts
from einthoven.serve.rendering import assets
from einthoven.serve.service import Service
from einthoven.serve.spoken import ADVICE, TITLES

Ask = Callable[..., Any]
TOKEN = "t" * 40
VENDORED = files("einthoven") / "serve" / "static" / "vendor"


def test_htmx_is_the_one_that_was_published() -> None:
    said = (VENDORED / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((VENDORED / "htmx.min.js").read_bytes()).hexdigest() in said
    assert 'version:"2.0.11"' in (VENDORED / "htmx.min.js").read_text(encoding="utf-8") and "2.0.11" in said


def test_no_page_has_a_script_or_a_style_within_or_from_elsewhere() -> None:
    folder = files("einthoven") / "serve" / "templates"
    for template in folder.iterdir():
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|hx-on|https?://|js:", text), (
            template.name
        )


def test_files_of_the_page_are_there_and_no_others(ask: Ask) -> None:
    for name in assets():
        answer = ask("GET", f"/static/{name}")
        assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
        again = ask("GET", f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content
    for name in ("../app.py", "%2e%2e/app.py", "vendor/README.md", "nothing.css"):
        assert ask("GET", f"/static/{name}").status_code == 404


def test_a_page_needs_the_token_and_the_form_of_it_gives_a_session(served: Callable[..., Any]) -> None:
    ask = served(token=TOKEN)
    for path in ("/", "/recording/x", "/compare", "/search/x"):
        answer = ask("GET", path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    refused = ask("POST", "/search", data={"q": "x"})
    assert refused.status_code == 401 and 'href="/login"' in refused.text
    assert ask("GET", "/login").status_code == 200 and ask("GET", "/static/style.css").status_code == 200
    wrong = ask("POST", "/login", data={"token": "wrong"})
    assert wrong.status_code == 401 and "not the token" in wrong.text and "set-cookie" not in wrong.headers
    entered = ask("POST", "/login", data={"token": TOKEN})
    assert entered.status_code == 303 and "HttpOnly" in entered.headers["set-cookie"]
    cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
    inside = ask("GET", "/", headers=cookie)
    assert inside.status_code == 200 and "Sign out" in inside.text
    assert "einthoven_session=" in ask("POST", "/logout", headers=cookie).headers["set-cookie"]


def test_a_form_of_another_site_is_refused_in_words(ask: Ask) -> None:
    answer = ask("POST", "/search", data={"q": "x"}, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403 and answer.headers["content-type"].startswith("text/html")
    assert "own page" in answer.text and answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_browsers_say_where_our_own_forms_come_from(ask: Ask) -> None:
    assert ask("GET", "/").headers["referrer-policy"] == "same-origin"
    assert ask("GET", "/api/health").headers["referrer-policy"] == "no-referrer"


def test_too_many_requests_are_told_how_long_to_wait(served: Callable[..., Any]) -> None:
    ask = served(rate=0.01, burst=1)
    assert ask("GET", "/").status_code == 200
    answer = ask("GET", "/")
    wait = int(answer.headers["retry-after"])  # less than 100 by as long as the first took
    assert answer.status_code == 429 and 50 < wait <= 100 and f"Wait {wait} seconds" in answer.text
    assert ask("GET", "/api/health").headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "of", "status", "said"),
    [
        ("GET", "/Mustermann", {}, 404, "Check the address"),
        ("GET", "/recording/Mustermann", {}, 404, "no such recording"),
        ("GET", "/static/Mustermann", {}, 404, "Check the address"),
        ("GET", "/search/Mustermann", {}, 410, "Ask it again"),
        ("POST", "/", {}, 405, "Search with the box"),
        (
            "POST",
            "/search",
            {"content": b"-", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "send the form",
        ),
        ("GET", "/compare", {"params": {"recording": ["a"]}}, 422, "Mark two"),
        ("GET", "/", {"headers": {"Host": "mustermann.example"}}, 421, "Use the name"),
    ],
)
def test_every_problem_is_a_page_that_says_what_to_do(
    ask: Ask, method: str, path: str, of: dict[str, Any], status: int, said: str
) -> None:
    answer = ask(method, path, **of)
    assert answer.status_code == status and answer.headers["content-type"].startswith("text/html")
    assert said in answer.text and 'role="alert"' in answer.text and "ustermann" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "The server failed" not in answer.text


@pytest.mark.parametrize("status", sorted(TITLES))
def test_every_title_has_its_advice(status: int) -> None:
    assert ADVICE[status].endswith(".") and HTTPStatus(status)


def test_what_is_typed_is_escaped_and_in_no_address(ask: Ask) -> None:
    words = "<script>alert(1)</script> \"x' {{ 7 * 7 }}"
    answer = ask("POST", "/search", data={"q": words})
    assert answer.status_code == 303 and re.fullmatch(r"/search/[\w-]{22}", answer.headers["location"])
    shown = ask("GET", answer.headers["location"]).text
    assert "<script>alert" not in shown and "&lt;script&gt;alert(1)" in shown and "{{ 7 * 7 }}" in shown


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"q": "  "}, "The box is empty"),
        ({"q": "a" * 2001}, "At most 2,000 characters"),
        ({"recording": "nobody"}, "no such recording"),
        ({"q": "SCP//NROM"}, "SCP//NORM"),
    ],
)
def test_a_search_that_cannot_be_is_told_in_words(ask: Ask, data: dict[str, str], said: str) -> None:
    answer = ask("POST", "/search", data=data)
    assert answer.status_code in (404, 422) and said in answer.text and 'role="alert"' in answer.text


@pytest.mark.parametrize("data", [{"top": "0"}, {"top": "10001"}, {"top": "x"}, {"top": "5", "least": "high"}])
def test_an_export_that_cannot_be_is_told_in_words(ask: Ask, data: dict[str, str]) -> None:
    found = ask("POST", "/search", data={"q": "sinus rhythm"}).headers["location"].rpartition("/")[2]
    answer = ask("POST", "/cohort", data={"search": found, **data})
    assert answer.status_code == 422 and "Expected a number" in answer.text


def test_like_a_recording_finds_other_patients(ask: Ask, recording: str, service: Service) -> None:
    found = ask("POST", "/search", data={"recording": recording}).headers["location"]
    ids = re.findall(r'data-mark[^>]*|name="recording" value="([^"]+)" data-mark', ask("GET", found).text)
    subjects = {service.charts.row(name)["subject_id"] for name in ids}  # type: ignore[index]
    assert ids and service.charts.row(recording)["subject_id"] not in subjects  # type: ignore[index]


def test_a_zero_shot_score_is_shown_with_its_range(ask: Ask, recording: str) -> None:
    page = ask("GET", f"/recording/{recording}").text
    for one in ask("POST", "/api/findings", json={"recording_id": recording}).json()["findings"]:
        if said := one["zero_shot"]:
            of = re.escape(
                f'{said["score"]:+.3f} <span class="soft">({said["low"]:+.3f} to {said["high"]:+.3f})</span>'
            )
            assert re.search(rf'<th scope="row">{one["name"]}<.*?</th>\s*<td class="num">{of}', page)
    assert "Zero-shot: score (range)" in page and "how much hangs on the wording" in page


def test_texts_of_notes_are_shown_only_if_the_server_was_started_so(service: Service, ask: Ask, recording: str) -> None:
    charts = Charts(service.archive.study, service.charts.store, show_notes=True)
    known = charts.recording(recording)
    texts = [note.text for note in known.notes if note.text] if known else []
    page = ask("GET", f"/recording/{recording}").text
    assert texts and not any(text in page for text in texts) and "--show-notes" in page


def test_who_reloads_what_a_form_was_sent_to_comes_to_the_box(ask: Ask) -> None:
    for path in ("/search", "/upload", "/cohort"):
        assert ask("GET", path).headers["location"] == "/"


def test_pages_are_no_part_of_the_api(ask: Ask) -> None:
    assert all(path.startswith("/api/") for path in ask("GET", "/api/openapi.json").json()["paths"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sampling_rate": ""}, "sampling rate"),
        ({"sampling_rate": "5OO"}, "expected a number of hertz"),
        ({"sampling_rate": "0.1"}, "sampling rate"),
        ({"unit": "furlong"}, "unit"),
        ({"leads": "I,<b>"}, "names of leads"),
    ],
)
def test_a_refused_upload_keeps_what_was_written_beside_the_file(
    ask: Callable[..., Any], make: Any, change: dict[str, str], told: str
) -> None:
    written = {"sampling_rate": "500", "unit": "mV", "leads": "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"}
    sent = written | change
    assert ask("POST", "/upload", files={"file": ("a.npy", make.npy())}, data=written).status_code == 303
    refused = ask("POST", "/upload", files={"file": ("a.npy", make.npy())}, data=sent)
    assert refused.status_code == 422 and told in refused.text and 'id="upload" open' in refused.text
    for name, value in sent.items():
        assert f'value="{html.escape(value)}"' in refused.text.split(f'name="{name}"')[1].split(">")[0] + ">", name
    assert ask("POST", "/upload", data=written).status_code == 422
