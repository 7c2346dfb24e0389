"""The page in a browser: Debian's Chromium, one of it and one server for all tests here."""

import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import uvicorn

from einthoven import schema
from einthoven.schema import LEADS
from einthoven.serve.app import create_app
from einthoven.serve.options import Options
from einthoven.serve.service import Service

CHROMIUM = Path("/usr/bin/chromium")
pytest.importorskip("playwright", reason="the page is tested with playwright, which is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not there")
TEXT = "atrial fibrillation"
OPTIONS = Options(rate=1e6, burst=10**6)


@pytest.fixture(scope="module")
def base(service: Service) -> Iterator[str]:
    """The address of a server."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(service, OPTIONS), lifespan="off", log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)  # of a thread that was just started
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(base: str, browser: Any) -> Iterator[Any]:
    """Opens pages; at the end no page has said that something was wrong, such as a breach of the CSP."""
    contexts: list[Any] = []
    said: list[str] = []

    def opened(path: str = "/", **of: Any) -> Any:
        context = browser.new_context(base_url=base, **{"viewport": {"width": 1300, "height": 900}, **of})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [text for text in said if "the server responded with a status of 4" not in text] == []


@pytest.fixture(scope="module")
def file(service: Service) -> dict[str, Any]:
    """A file with some ECG."""
    seconds = np.arange(5000) / 500
    signal = np.stack([np.sin(2 * np.pi * (1 + lead / 10) * seconds) for lead in range(12)]).astype(np.float32)
    content = io.BytesIO()
    np.save(content, signal)
    return {"name": "ecg.npy", "mimeType": "application/octet-stream", "buffer": content.getvalue()}


def search(page: Any, words: str) -> None:
    page.fill("#q", words)
    page.press("#q", "Enter")
    page.wait_for_url("**/search/*")
    page.wait_for_selector("[data-hit]")


def titles(page: Any) -> list[str]:
    return page.locator("[data-hit] .code").all_inner_texts()


def send(page: Any, file: dict[str, Any]) -> None:
    page.click("#upload > summary")
    page.set_input_files("[name=file]", file)
    page.fill("[name=sampling_rate]", "500")
    page.fill("[name=leads]", ",".join(LEADS))
    page.fill("[name=unit]", "mV")
    page.click("#send button")
    page.wait_for_url("**/search/*")


def test_the_basics_need_no_javascript(visit: Any, file: dict[str, Any]) -> None:
    page = visit(java_script_enabled=False)
    assert "Not a medical device" in page.inner_text("footer")
    search(page, TEXT)
    assert page.inner_text("h1") == f"“{TEXT}”" and TEXT not in page.url and page.input_value("#q") == TEXT
    page.check("[name=sex][value=female]")
    page.click("text=Apply")
    page.wait_for_selector("[name=sex][value=female]:checked")
    facts = page.locator("[data-hit] .facts").all_inner_texts()
    assert facts and all("female" in told for told in facts)
    page.locator("[data-open]").first.click()
    page.click("text=Mark what drives the match")
    assert page.locator("svg.heat").count() == 1 and page.locator("#strip .paper svg").count() == 1
    send(page, file)
    assert page.inner_text("h1") == "ECGs like the uploaded one"


def test_a_search_with_scripts_changes_the_results_alone(visit: Any) -> None:
    from playwright.sync_api import expect

    page = visit()
    page.evaluate("window.same = true")
    search(page, TEXT)
    first = titles(page)
    other = "train" if "test" in page.inner_text("[data-hit] .facts >> nth=0") else "test"
    page.check(f"[name=split][value={other}]")
    expect(page.locator("[data-hit] .code").first).not_to_have_text(first[0], timeout=10_000)
    assert page.is_checked(f"[name=split][value={other}]")
    assert all(other in facts for facts in page.locator("[data-hit] .facts").all_inner_texts())
    assert page.evaluate("window.same") and page.input_value("#q") == TEXT and page.title() == "Results · einthoven"
    page.go_back()
    expect(page.locator("[data-hit] .code").first).to_have_text(first[0], timeout=10_000)
    kept = page.evaluate("JSON.stringify([sessionStorage, localStorage])")
    assert TEXT not in kept and "female" not in kept and "sim-" not in kept  # no results outlive their page


def test_codes_are_suggested_and_searched(visit: Any) -> None:
    page = visit()
    page.locator("#q").press_sequentially("normal e")
    page.wait_for_selector("#suggestions option[value='SCP//NORM']", state="attached")
    search(page, "SCP//NORM")
    assert page.inner_text("h1 .code") == "SCP//NORM"
    page.fill("#q", "SCP//NROM")
    page.press("#q", "Enter")
    page.wait_for_selector("[role=alert]")
    assert "SCP//NORM" in page.inner_text("[role=alert]")


def test_a_recording_has_its_chart_findings_and_like(visit: Any) -> None:
    page = visit()
    search(page, TEXT)
    page.locator("[data-open]").first.click()
    page.wait_for_selector("#strip img")
    alt = page.get_attribute("#strip img", "alt")
    assert alt.startswith("12-lead ECG, recorded at 100 Hz") and "sim" not in alt
    assert page.evaluate("document.querySelector('#strip img').decode().then(() => true)")
    assert page.locator("svg.timeline .code").count() > 0 and page.locator(".findings tbody tr").count() == 5
    assert page.locator(".alike li").count() > 0
    page.click("text=Mark what drives the match")
    page.wait_for_selector("svg.heat")
    assert page.locator("#strip .paper rect[fill-opacity]").count() > 0
    page.click("text=Plain strip")
    page.wait_for_selector("#strip img")
    page.click("summary:has-text('notes of the patient')")
    assert page.locator(".notes .text").count() == 0  # the server does not show them


def test_an_upload_can_be_dropped_and_one_that_is_no_ecg_is_told(visit: Any, samples: dict[str, bytes]) -> None:
    page = visit()

    def drop(content: bytes) -> None:
        page.evaluate(
            """bytes => {
                const files = new DataTransfer();
                files.items.add(new File([new Uint8Array(bytes)], "ecg.bin"));
                document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true}));
            }""",
            list(content),
        )

    with page.expect_navigation():
        drop(samples["ISHNE"])
    assert "ISHNE" in page.inner_text(".own .facts") and page.locator(".own .paper svg").count() == 1
    page.click(".own summary")
    assert page.locator(".own .findings tbody tr").count() == 5
    with page.expect_navigation():
        drop(b"not an ECG")
    assert "could not be answered" in page.inner_text("[role=alert]")


def test_two_are_compared(visit: Any, file: dict[str, Any]) -> None:
    page = visit()
    search(page, TEXT)
    page.click("text=Compare the two")
    page.wait_for_selector("[role=alert]")
    assert "Mark two" in page.inner_text("[role=alert]")
    page.go_back()
    for place in (0, 1):
        page.locator("[data-mark]").nth(place).check()
    page.click("text=Compare the two")
    page.wait_for_selector(".compare")
    assert page.locator(".compare .paper img").count() == 2
    send(page, file)
    page.locator("[data-mark]").first.check()
    page.click("text=Compare with the uploaded")
    page.wait_for_selector(".compare")
    assert page.locator(".compare .paper img").count() == page.locator(".compare .paper svg").count() == 1


def test_a_cohort_is_exported(visit: Any, service: Service) -> None:
    page = visit()
    search(page, TEXT)
    page.fill("[name=top]", "7")
    with page.expect_download() as download:
        page.click("button:text-is('CSV')")
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 8 and lines[0].startswith("recording_id,subject_id")
    with page.expect_download() as download:
        page.click("button:text-is('MEDS labels')")
    labels = pq.read_table(download.value.path())
    rows = pq.read_table(schema.RECORDINGS.at(service.archive.study))
    assert len(labels) == 7 and pc.all(pc.is_in(labels["subject_id"], rows["subject_id"].combine_chunks())).as_py()


def test_keys_go_to_the_box_and_through_the_results(visit: Any) -> None:
    page = visit()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type(TEXT)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-hit]")
    page.keyboard.type("/jk?")  # into the box
    assert page.input_value("#q") == f"{TEXT}/jk?"
    page.evaluate("document.activeElement.blur()")
    for key in "jjjk":
        page.keyboard.press(key)
    assert page.evaluate("[...document.querySelectorAll('[data-open]')].indexOf(document.activeElement)") == 1
    page.keyboard.press("x")
    assert page.locator("[data-mark]").nth(1).is_checked()
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") != "q"  # WCAG 2.1.4: they can be turned off
    page.locator("[data-open]").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/recording/*")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_scrolls_the_strips_and_never_the_page(visit: Any, theme: str, file: dict[str, Any]) -> None:
    page = visit(viewport={"width": 360, "height": 740}, color_scheme=theme)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 360
    search(page, TEXT)
    assert page.evaluate(wide) == 360
    paper, strip = page.locator(".paper").first, page.locator(".paper img").first
    assert strip.bounding_box()["width"] == 983 and paper.bounding_box()["width"] < 360  # 260 mm: true to scale
    page.locator("[data-open]").first.click()
    page.click("text=Mark what drives the match")
    page.wait_for_selector("svg.heat")
    for summary in page.locator("main summary").all():
        summary.click()
    assert page.evaluate(wide) == 360
    send(page, file)
    assert page.evaluate(wide) == 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", ground)) < 200) == (theme == "dark")


def test_what_is_not_there_is_a_sentence_that_says_what_to_do(visit: Any) -> None:
    page = visit("/search/forgotten")
    assert "Ask it again" in page.inner_text("[role=alert]")
    page.goto("/recording/none")
    assert "search with the box above" in page.inner_text("[role=alert]")
    page.goto("/")
    search(page, TEXT)
    page.fill("[name=youngest]", "149")
    page.press("[name=youngest]", "Enter")
    page.wait_for_selector(".empty")
    assert "Take one away" in page.inner_text(".empty")


def test_every_field_has_a_name_and_headings_are_in_order(visit: Any) -> None:
    page = visit()
    search(page, TEXT)
    for path in (page.url, page.locator("[data-open]").first.get_attribute("href")):
        page.goto(path)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("input:not([type=hidden]), button, a[href], img, summary")].filter(
                e => !(e.labels?.length || e.textContent.trim() || e.hasAttribute("alt") || e.ariaLabel)).length"""
        )
        assert nameless == 0
        assert page.locator("h1").count() == 1 and page.locator("main, header, footer, nav").count() >= 4
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
