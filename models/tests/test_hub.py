"""Repositories of the hub: fetched over HTTP by the hub's own client, from a server on this machine that speaks its
API for one repository."""

import json
import os
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """`/api/models/…` names the commit and lists the files, `/…/resolve/…` serves them."""

    folder: Path
    served: list[str]

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        path = self.path.split("?")[0]
        body, headers = b"", {}
        if path == f"/api/models/someone/kinds/tree/{COMMIT}":
            files = sorted(self.folder.iterdir())
            entries = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"} for file in files]
            body = json.dumps(entries).encode()
        elif path.startswith("/api/models/someone/kinds"):
            files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            body = json.dumps({"id": "someone/kinds", "sha": COMMIT, "siblings": files}).encode()
        elif path.startswith(f"/someone/kinds/resolve/{COMMIT}/") and (self.folder / Path(path).name).is_file():
            body = (self.folder / Path(path).name).read_bytes()
            headers = {"ETag": f'"{Path(path).name}"', "X-Repo-Commit": COMMIT}
            self.served.append(Path(path).name)
        self.send_response(200 if body else 404)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_arguments):
        """Quiet."""


@pytest.fixture
def hub():
    """The server, its requests collected in `Hub.served`."""
    Hub.served = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run_with(endpoint, tmp_path, *arguments):
    """A command in a process of its own, because the hub's client reads its address once."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "albertine_models", *arguments, "--output", str(tmp_path / "output")]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)


def test_a_repository_is_fetched_and_named_with_its_commit(hub, checkpoint, tmp_path):
    Hub.folder = checkpoint()
    (Hub.folder / "code.py").write_text("raise SystemExit('code of a checkpoint ran')")
    (Hub.folder / "pytorch_model.bin").write_bytes(b"not needed where there are safetensors")
    done = run_with(hub, tmp_path, "convert", "someone/kinds", "--precision", "float32")
    assert done.returncode == 0, done.stderr
    manifest = tomllib.loads((tmp_path / "output" / "model.toml").read_text())
    assert manifest["name"] == "kinds" and manifest["provenance"]["source"] == f"someone/kinds@{COMMIT}"
    assert {"model.safetensors", "spiece.model", "config.json"} <= set(Hub.served)
    assert not {"code.py", "pytorch_model.bin"} & set(Hub.served)


def test_pickled_weights_are_fetched_where_there_are_no_others_and_tokens_need_none(hub, checkpoint, tmp_path):
    Hub.folder = checkpoint()
    model = transformers.AlbertForSequenceClassification.from_pretrained(Hub.folder)
    torch.save(model.state_dict(), Hub.folder / "pytorch_model.bin")
    (Hub.folder / "model.safetensors").unlink()
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "a kettle"}')
    done = run_with(hub, tmp_path, "tokens", "someone/kinds", str(texts))
    assert done.returncode == 0 and "pytorch_model.bin" not in Hub.served, done.stderr
    (tmp_path / "output").unlink()
    done = run_with(hub, tmp_path, "convert", "someone/kinds", "--precision", "float32")
    assert done.returncode == 0 and "pytorch_model.bin" in Hub.served, done.stderr


def test_a_repository_that_is_not_there(hub, tmp_path):
    done = run_with(hub, tmp_path, "convert", "someone/else")
    assert done.returncode == 1
    assert "fetching it from the hub failed" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
