"""Take the pictures of docs/page.md: the page with a simulated study, in Debian's Chromium.

python results/screenshots.py [DIRECTORY]   # where the study and its model are made, or were; default: runs/page
"""

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from einthoven import pipeline
from einthoven.config import load_recipe
from einthoven.indexing import open_archive
from einthoven.serve.app import create_app
from einthoven.serve.options import Options
from einthoven.serve.service import Service

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
MOST_BYTES = 300_000
WORDS = "atrial fibrillation"
RECIPE = """
[source]
name = "simulated"
subjects = 1000
[pairing]
note_kinds = ["ecg", "echo", "clinical"]
[ecg]
width = 32
[text]
hidden = 96
layers = 2
[codes]
hidden = 64
layers = 1
heads = 4
[space]
modalities = ["ecg", "codes", "text"]
[augmentation]
code_queries = 0.5
text_queries = 0.25
[training]
epochs = 40
batch = 64
validate_every = 10
[evaluation]
control = false
label_fractions = [0.5, 1.0]
subsets = 4
"""


def made(folder: Path) -> Service:
    """The study and its model, what is missing of them made; everything in it is simulated."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "page.toml").write_text(RECIPE, encoding="utf-8")
        recipe = load_recipe(Path(scratch) / "page.toml")
    pipeline.ingest(recipe.source, None, folder)
    pipeline.pair(recipe, folder)
    pipeline.align(recipe, folder, folder / "model")
    options = Options(show_notes=True)
    return Service.of(open_archive(folder / "model", folder), options)


def serve(service: Service) -> str:
    """Serve in a thread; the address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(service, service.options), lifespan="off", log_level="warning", ws="none")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def keep(name: str, png: bytes) -> None:
    """As few colours as are seen, so that the repository stays small."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for colours in (256, 128, 64, 32):
        small = BytesIO()
        Image.open(BytesIO(png)).convert("RGB").quantize(
            colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(small, "PNG", optimize=True)
        if len(small.getvalue()) < MOST_BYTES:
            break
    (IMAGES / f"{name}.png").write_bytes(small.getvalue())
    print(f"{name}.png: {len(small.getvalue()):,} bytes, {colours} colours")


def search(page: Any, words: str) -> None:
    page.fill("#q", words)
    page.press("#q", "Enter")
    page.wait_for_selector("[data-hit]")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_load_state("networkidle")


def home(page: Any) -> bytes:
    return page.screenshot()


def results(page: Any) -> bytes:
    search(page, WORDS)
    return page.screenshot()


def overview(page: Any) -> bytes:
    search(page, "SCP//CLBBB")
    page.check("[name=small]")
    page.wait_for_selector(".small-strips")
    page.wait_for_load_state("networkidle")
    return page.screenshot()


def recording(page: Any) -> bytes:
    search(page, WORDS)
    page.locator("[data-open]").first.click()
    page.click("text=Mark what drives the match")
    page.wait_for_selector("svg.heat")
    page.evaluate("document.activeElement.blur()")
    return page.screenshot(full_page=True)


def compare(page: Any) -> bytes:
    search(page, WORDS)
    for place in (0, 2):
        page.locator("[data-mark]").nth(place).check()
    page.click("text=Compare the two")
    page.wait_for_load_state("networkidle")
    return page.screenshot(full_page=True)


SHOTS: dict[str, tuple[Callable[[Any], bytes], str, tuple[int, int]]] = {
    "page-home": (home, "light", (1300, 780)),
    "page-results": (results, "light", (1300, 900)),
    "page-overview": (overview, "light", (1300, 900)),
    "page-recording": (recording, "light", (1300, 900)),
    "page-compare": (compare, "light", (1300, 900)),
    "page-dark": (recording, "dark", (1300, 900)),
    "page-phone": (results, "dark", (390, 844)),
}


def take(browser: Browser, base: str) -> None:
    for name, (shot, theme, (width, height)) in SHOTS.items():
        context = browser.new_context(
            base_url=base, color_scheme=theme, viewport={"width": width, "height": height}, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto("/")
        keep(name, shot(page))
        context.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "runs" / "page"
    service = made(folder)
    base = serve(service)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        take(browser, base)
        browser.close()
    service.close()


if __name__ == "__main__":
    main()
