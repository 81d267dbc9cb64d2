"""Servers on localhost that speak the protocols checkpoints come by, and that can misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from engine_builder.fetch import transfer
from engine_builder.store.digests import digest_of_file, files_below

DIGITS = Path(__file__).parents[3] / "examples/digits/digits-klein"


class FileServer(ThreadingHTTPServer):
    """Serves `files` by URL path with ranges and ETags; what is in the other attributes makes it misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.headers_of: dict[str, dict[str, str]] = {}
        self.cut_after: dict[str, list[int]] = {}
        """By path: the next answers break off after so many bytes."""
        self.statuses: dict[str, list[int]] = {}
        """By path: the next answers are these errors."""
        self.authorization: str | None = None
        """Header that every request must have."""
        self.challenge: str | None = "Basic"
        """What a 401 asks for."""
        self.ranges = True
        self.etags = True
        self.log: list[tuple[str, str, str | None]] = []
        """Method, path and Range header of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def gets(self, path: str) -> list[str | None]:
        """Return the Range headers of the GETs of a path."""
        return [range_ for method, logged, range_ in self.log if (method, logged) == ("GET", path)]

    def web_folder(self, folder: Path, prefix: str = "/model") -> str:
        """Serve a folder as it is, and return its address."""
        self.files |= {f"{prefix}/{path.relative_to(folder)}": path.read_bytes() for path in files_below(folder)}
        return self.url + prefix

    def hub(self, folder: Path, name: str, commit: str, branch: str = "main") -> None:
        """Serve a folder as a Hugging Face hub serves a repository: `api/models/…` and `…/resolve/…`.

        Source: the requests that huggingface_hub 2.4 makes (`HfApi.model_info`, `get_hf_file_metadata`).
        """
        siblings = []
        for path in files_below(folder):
            relative, data = path.relative_to(folder).as_posix(), path.read_bytes()
            blob, lfs = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest(), path.suffix in (".safetensors", ".pth")
            sibling: dict[str, Any] = {"rfilename": relative, "size": len(data), "blobId": blob}
            if lfs:
                sibling["lfs"] = {"sha256": digest_of_file(path), "size": len(data), "pointerSize": 134}
            siblings.append(sibling)
            for revision in (branch, commit):
                url = f"/{name}/resolve/{revision}/{relative}"
                self.files[url] = data
                tag = digest_of_file(path) if lfs else blob
                self.headers_of[url] = {
                    "X-Repo-Commit": commit,
                    "X-Linked-Size": str(len(data)),
                    "X-Linked-Etag": f'"{tag}"',
                    "ETag": f'"{tag}"',
                }
        info = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": [], "cardData": {"license": "apache-2.0"}}
        for suffix in ("", f"/revision/{branch}", f"/revision/{commit}"):
            self.files[f"/api/models/{name}{suffix}"] = json.dumps(info).encode()
            self.headers_of[f"/api/models/{name}{suffix}"] = {"Content-Type": "application/json"}

    def registry(self, folder: Path, name: str, tag: str) -> str:
        """Serve a folder as an OCI registry serves what `oras push` put there, and return the manifest's digest."""
        layers = []
        for path in files_below(folder):
            digest = f"sha256:{digest_of_file(path)}"
            self.files[f"/v2/{name}/blobs/{digest}"] = path.read_bytes()
            title = {"org.opencontainers.image.title": path.relative_to(folder).as_posix()}
            layers.append({"mediaType": "application/octet-stream", "digest": digest, "size": path.stat().st_size, "annotations": title})
        return self.put_manifest(name, tag, {"layers": layers, "annotations": {"org.opencontainers.image.licenses": "Apache-2.0"}})

    def put_manifest(self, name: str, tag: str, content: dict[str, Any]) -> str:
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", **content}
        data = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for reference in (tag, digest):
            self.files[f"/v2/{name}/manifests/{reference}"] = data
            self.headers_of[f"/v2/{name}/manifests/{reference}"] = {"Docker-Content-Digest": digest}
        return digest


class Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        path, server = unquote(self.path.partition("?")[0]), self.server
        server.log.append((self.command, path, self.headers.get("Range")))
        if server.authorization is not None and path != "/token" and self.headers.get("Authorization") != server.authorization:
            return self.refuse(401, {"WWW-Authenticate": server.challenge} if server.challenge else server.headers_of.get("401", {}))
        if server.statuses.get(path):
            return self.refuse(server.statuses[path].pop(0), {})
        if path not in server.files:
            return self.refuse(404, server.headers_of.get("404", {}))
        return self.send_file(path, server.files[path], with_body=with_body)

    def refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_file(self, path: str, data: bytes, *, with_body: bool) -> None:
        begin = self.range_begin(data)
        self.send_response(206 if begin else 200)
        tags = {"ETag": etag(data)} if self.server.etags else {}
        headers = {**tags, "Accept-Ranges": "bytes", **self.server.headers_of.get(path, {})}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        for name, value in {**headers, "Content-Length": str(len(data) - begin)}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.send_body(path, data[begin:])

    def range_begin(self, data: bytes) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not match or not self.server.ranges or self.headers.get("If-Range", etag(data)) != etag(data):
            return 0
        return int(match[1])

    def send_body(self, path: str, body: bytes) -> None:
        cuts = self.server.cut_after.get(path)
        if not cuts:
            self.wfile.write(body)
            return
        self.wfile.write(body[: cuts.pop(0)])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The demo model, with what repositories have besides: the same weights as pickles and for other runtimes, and a licence."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(DIGITS, folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Digits\n")
    (folder / "all-in-one.safetensors").write_bytes(b"the same again")
    (folder / "demo.py").write_text("print('beside the components: not wanted, not harmful')")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"onnx")
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "transformer" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"rounded")
    return folder
