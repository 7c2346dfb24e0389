"""The Hub: a small one on this machine, which keeps what it is given; and its cache, laid out as the library does."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from huggingface_hub import constants

import einthoven
from einthoven import hub, model_card, pipeline
from einthoven.config import EcgEncoder, Space, TextEncoder
from einthoven.errors import EinthovenError
from einthoven.model import Model

COMMIT = "c" * 40
ECG = np.random.default_rng(0).standard_normal((12, 1000)).astype(np.float32)


class Server(ThreadingHTTPServer):
    """What `snapshot_download`, `create_repo` and `create_commit` ask of the Hub, for models in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.status: dict[str, tuple[int, str]] = {}  # a model's name -> what every question about it is answered
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models/").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        files = self.server.models.get(name)
        if name in self.server.status:
            status, code = self.server.status[name]
            self.answer(status, b"{}", **{"X-Error-Code": code})
        elif files is None:
            self.answer(401, b"{}", **{"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["resolve"]:
            data = files["/".join(rest[2:])]
            self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', **{"X-Repo-Commit": COMMIT})
        elif len(rest) > 1 and rest[1] not in ("main", COMMIT):
            self.answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            listed = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files.items()
            ]
            self.json(listed)
        else:
            siblings = [{"rfilename": file} for file in files]
            self.json({"id": name, "sha": COMMIT, "private": self.server.private[name], "siblings": siblings})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":  # of a card
            return self.json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            said = json.dumps({"url": f"{self.server.url}/{name}", "id": name}).encode()
            if name in self.server.models:
                return self.answer(409, said)
            self.server.models[name], self.server.private[name] = {}, private
            return self.answer(200, said)
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if "/preupload/" in path:
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.json({"files": modes})
        files = self.server.models[name]
        for entry in (json.loads(line) for line in body.splitlines()):
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
        return self.json({"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()
    threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    settings = {
        "ENDPOINT": found.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": found.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in settings.items():  # the library reads them from the environment when it is imported
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Model:
    torch.manual_seed(0)
    text = TextEncoder(hidden=16, layers=1, heads=2, vocabulary=200)
    made = Model.create(EcgEncoder(width=8, blocks=(1, 1)), text, Space(dim=8, hidden=16), ["sinus rhythm"]).eval()
    made.save(tmp_path / "model")
    return made


def test_what_is_pushed_is_loaded_again_from_its_commit_and_from_the_cache(server: Server, model: Model) -> None:
    place = model.push("clinic/heart")
    assert place == f"clinic/heart@{COMMIT}" and server.private["clinic/heart"]
    assert set(server.models["clinic/heart"]) == {
        "config.json", "model.safetensors", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    }  # fmt: skip
    for found in (einthoven.load("clinic/heart"), einthoven.load(place)):
        assert np.array_equal(found.encode_ecg(ECG, 100), model.encode_ecg(ECG, 100))
        assert np.array_equal(found.encode_text(["sinus rhythm"]), model.encode_text(["sinus rhythm"]))
    server.asked.clear()
    again = einthoven.load("clinic/heart", local_files_only=True)
    assert np.array_equal(again.encode_ecg(ECG, 100), model.encode_ecg(ECG, 100)) and not server.asked
    assert einthoven.EcgEmbedder("clinic/heart", 100).transform([ECG]).shape == (1, 16)


def test_only_the_files_of_a_model_are_fetched(server: Server, model: Model, tmp_path: Path) -> None:
    model.push("clinic/heart")
    server.models["clinic/heart"] |= {"pytorch_model.bin": b"pickle", "run.py": b"", "README.md": b"# a heart"}
    there = hub.directory_of("clinic/heart")
    fetched = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert fetched == set(hub.files_of(tmp_path / "model"))
    assert not [asked for asked in server.asked if "pickle" in asked or ".bin" in asked or ".py" in asked]


def test_a_push_replaces_the_model_and_leaves_what_is_not_of_one(server: Server, model: Model, tmp_path: Path) -> None:
    (tmp_path / "model" / "probes.safetensors").write_bytes(b"old probes")
    (tmp_path / "model" / "manifest.json").write_text('{"inputs": "/home/somebody"}')
    (tmp_path / "model" / "README.md").write_text("# ours")
    model.push("clinic/heart")
    assert server.models["clinic/heart"]["README.md"] == b"# ours"
    server.models["clinic/heart"]["README.md"] = b"# a heart"
    assert server.models["clinic/heart"]["probes.safetensors"] == b"old probes"
    assert "manifest.json" not in server.models["clinic/heart"]
    (tmp_path / "model" / "probes.safetensors").unlink()
    model.push("clinic/heart")
    assert "probes.safetensors" not in server.models["clinic/heart"]
    assert server.models["clinic/heart"]["README.md"] == b"# a heart"


def test_a_directory_with_anything_else_is_not_pushed(server: Server, model: Model, tmp_path: Path) -> None:
    (tmp_path / "model" / "tokenizer" / "letters.csv").write_text("Mrs …")
    with pytest.raises(EinthovenError, match=r"tokenizer/letters.csv, which is not of a model; nothing was uploaded"):
        model.push("clinic/heart")
    assert not server.asked and not server.models


def test_a_model_is_not_made_public_unasked(server: Server, model: Model, tmp_path: Path) -> None:
    (tmp_path / "model" / "outliers.safetensors").write_bytes(b"features of patients")
    model.push("clinic/closed")
    assert "outliers.safetensors" in server.models["clinic/closed"]
    model.push("clinic/open", private=False)
    assert "outliers.safetensors" not in server.models["clinic/open"]
    before = dict(server.models["clinic/open"])
    assert before and not server.private["clinic/open"]
    with pytest.raises(EinthovenError, match="there and public"):
        model.push("clinic/open")
    assert server.models["clinic/open"] == before


def test_only_what_is_saved_is_pushed(server: Server, model: Model, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="save"):
        model.untrained(1).push("clinic/heart")
    loaded = einthoven.load(tmp_path / "model")
    with torch.no_grad():
        loaded.log_scale += 1
    with pytest.raises(EinthovenError, match="as it is now"):
        loaded.push("clinic/heart")
    assert not server.models
    loaded.save(tmp_path / "other")
    assert loaded.push("clinic/heart")


@pytest.mark.parametrize(
    ("place", "status", "message"),
    [
        ("clinic/nobody", None, "no directory here, and no model on the Hub that you may read"),
        ("clinic/gated", (403, "GatedRepo"), "conditions to be accepted"),
        ("clinic/heart@v9", None, "has no revision v9"),
        ("clinic/broken", (500, ""), "not, or not whole, in the Hub's cache"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(server: Server, model: Model, place, status, message) -> None:
    model.push("clinic/heart")
    if status:
        server.status[place] = status
    with pytest.raises(EinthovenError, match=message) as caught:
        einthoven.load(place)
    assert "\n" not in str(caught.value) and "hf_secret" not in str(caught.value) and "http" not in str(caught.value)


def test_without_a_network_it_says_so(server: Server, model: Model) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(EinthovenError, match="The Hub cannot be reached: check the network"):
        einthoven.load("clinic/heart")
    with pytest.raises(EinthovenError, match="Load it once without local_files_only"):
        einthoven.load("clinic/heart", local_files_only=True)
    with pytest.raises(EinthovenError, match="check the network"):
        model.push("clinic/heart")


def test_a_snapshot_in_the_cache_needs_no_network(server: Server, model: Model, tmp_path: Path) -> None:
    of_model = tmp_path / "cache" / "models--clinic--cached"
    (of_model / "refs").mkdir(parents=True)
    (of_model / "refs" / "main").write_text(COMMIT)
    model.save(of_model / "snapshots" / COMMIT)
    assert hub.directory_of("clinic/cached", local_files_only=True) == of_model / "snapshots" / COMMIT
    assert not server.asked


@pytest.mark.parametrize("place", ["nowhere", "/a/b", "./a/b", "../a", "a/b/c", "~/a", "a b/c", Path("clinic/heart")])
def test_what_cannot_be_an_id_never_leaves_the_machine(server: Server, place: str | Path) -> None:
    with pytest.raises(EinthovenError, match="not a model directory"):
        einthoven.load(place)
    assert not server.asked


def test_a_directory_goes_before_the_hub(server: Server, model: Model, tmp_path: Path, monkeypatch) -> None:
    model.save(tmp_path / "clinic" / "heart")
    monkeypatch.chdir(tmp_path)
    assert einthoven.load("clinic/heart").directory == Path("clinic/heart")
    assert not server.asked


def test_all_that_training_leaves_is_known_to_the_hub() -> None:
    known = {file.split("/")[0] for file in (*hub.FILES, *hub.STAYING, hub.CARD)}
    assert {*pipeline.MODEL_FILES, "manifest.json", "calibration.json", model_card.FILE} == known
    with pytest.raises(EinthovenError, match="expected owner/name"):
        hub.push(Path("model"), "name")
