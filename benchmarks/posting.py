"""A cheap HTTP client: prepared requests over kept connections, on plain sockets."""

import asyncio
import collections
import json
import re
import time
import urllib.parse
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

CONNECTIONS = 16


@dataclass(frozen=True)
class Load:
    """What one turn of POSTs came to; ``client_share`` is the client's own use of one core."""

    accepted: int
    seconds: float
    latencies: tuple[float, ...]
    client_share: float

    @property
    def rate(self) -> float:
        """Accepted requests per second."""
        return self.accepted / self.seconds


def request(base_url: str, key: str, model: str, sample_id: str) -> bytes:
    """One demand to forget one sample, as it goes over the wire."""
    target = {"kind": "sample", "ids": [sample_id]}
    body = json.dumps({"model": model, "targets": [target]}).encode()
    head = (
        "POST /v1/forget-requests HTTP/1.1\r\n"
        f"Host: {urllib.parse.urlsplit(base_url).netloc}\r\n"
        f"Authorization: Bearer {key}\r\n"
        f"Idempotency-Key: {uuid.uuid4().hex}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def post(base_url: str, ready: Iterable[bytes], seconds: float) -> Load:
    """Send prepared requests for so long; raises RuntimeError if one is not answered with 202."""
    return asyncio.run(_post_all(base_url, collections.deque(ready), seconds))


async def _post_all(base_url: str, ready: collections.deque[bytes], seconds: float) -> Load:
    address = urllib.parse.urlsplit(base_url)
    latencies: list[float] = []
    began, spent = time.perf_counter(), time.process_time()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while time.perf_counter() < began + seconds:
            if not ready:
                raise RuntimeError("ran out of prepared requests; take fewer --seconds")
            sent = time.perf_counter()
            writer.write(ready.popleft())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            answer = await reader.readexactly(int(length[1]) if length else 0)
            if not head.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"expected 202, got {head[:40]!r} {answer[:300]!r}")
            latencies.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    took = time.perf_counter() - began
    share = (time.process_time() - spent) / took
    return Load(len(latencies), took, tuple(latencies), share)
