"""A small registry over loopback that can be told to misbehave on the wire."""

import dataclasses
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client import http as client_http

Fault = Callable[["Handler", bytes, int], None]
"""Answers for a blob instead of the registry: (handler, the blob, the offset asked for)."""


@dataclasses.dataclass
class Registry:
    """One model, its versions, its production alias; what clients asked for; faults to inject."""

    model: str = "digits"
    versions: dict[int, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    revoked: set[int] = dataclasses.field(default_factory=set)
    production: int = 0
    min_version: int = 1
    extra_files: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    manifest_suffix: bytes = b""
    faults: list[Fault] = dataclasses.field(default_factory=list)
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    reports: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    statuses: list[tuple[int, dict[str, str]]] = dataclasses.field(default_factory=list)
    moved: threading.Condition = dataclasses.field(default_factory=threading.Condition)
    url: str = ""

    def publish(self, version: int, files: dict[str, bytes]) -> None:
        """Add a version and move the alias to it."""
        with self.moved:
            self.versions[version] = files
            self.production = version
            self.moved.notify_all()

    def manifest(self, version: int) -> bytes:
        files = [
            {"path": path, "digest": sha256(content), "size": len(content)}
            for path, content in self.versions[version].items()
        ]
        body = {"model": self.model, "version": version, "files": files + self.extra_files}
        return json.dumps(body).encode("utf-8")

    def blob(self, digest: str) -> bytes | None:
        for files in self.versions.values():
            for content in files.values():
                if sha256(content) == digest:
                    return content
        return None

    def blobs_asked(self) -> list[str]:
        return [path.rsplit("/", 1)[-1] for _, path in self.asked if "/blobs/" in path]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one ``Registry``."""

    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_GET(self) -> None:
        self.registry.asked.append((self.headers.get("Range", ""), self.path))
        if self.registry.statuses:
            status, headers = self.registry.statuses.pop(0)
            self.answer(status, {"title": "told to fail"}, headers)
            return
        parts = self.path.strip("/").split("/")
        if parts[1] == "blobs":
            self.send_blob(parts[3])
        elif parts[3] == "aliases":
            self.send_pointer()
        elif int(parts[4]) in self.registry.revoked:
            self.answer(410, {"type": "/problems/version-revoked", "title": "revoked"})
        elif parts[-1] == "manifest":
            self.send(200, self.registry.manifest(int(parts[4])) + self.registry.manifest_suffix)
        else:
            self.answer(200, {"version": int(parts[4])})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.registry.reports.append({"path": self.path, **body})
        self.answer(200, {})

    def send_pointer(self) -> None:
        registry = self.registry
        seen = self.headers.get("If-None-Match")
        with registry.moved:
            if seen == f'"{registry.production}"':
                registry.moved.wait(0.5)
            version = registry.production
        if seen == f'"{version}"':
            self.send(304, b"")
            return
        digest = sha256(registry.manifest(version))
        pointer = {"version": version, "manifest_digest": digest, "serial": version}
        body = {**pointer, "min_version": registry.min_version, "model": registry.model}
        self.answer(200, body, {"ETag": f'"{version}"'})

    def send_blob(self, digest: str) -> None:
        content = self.registry.blob(digest)
        if content is None:
            self.answer(404, {"title": "no such blob"})
            return
        asked = self.headers.get("Range", "")
        offset = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if self.registry.faults:
            self.registry.faults.pop(0)(self, content, offset)
            return
        self.send_rest(content, offset)

    def send_rest(self, content: bytes, offset: int) -> None:
        end = f"bytes {offset}-{len(content) - 1}/{len(content)}"
        headers = {"Content-Range": end} if offset else {}
        self.send(206 if offset else 200, content[offset:], headers)

    def answer(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        self.send(status, json.dumps(body).encode("utf-8"), headers)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        del format, args


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that answers on loopback."""
    served = Registry()
    handler = type("BoundHandler", (Handler,), {"registry": served})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def api(registry: Registry) -> Iterator[client_http.Api]:
    """A connection to it that does not wait between attempts."""
    with client_http.Api(registry.url, "key", sleep=lambda _: None) as connection:
        yield connection
