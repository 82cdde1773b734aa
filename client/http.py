"""The HTTP contract as a client sees it: authentication, retries, errors.

A call is repeated after 429, 503 and broken connections, but only when repeating is safe: the
method is idempotent, or the call carries an ``Idempotency-Key`` (the same one each time), or the
connection was never made.
"""

import contextlib
import json
import random
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from client import errors

Json = dict[str, Any]
Content = Callable[[], Iterable[bytes]]
"""Makes a fresh iterable of the body for each attempt."""

_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_ATTEMPTS = 6
_LONGEST_PAUSE_SECONDS = 20.0
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class Api:
    """One service at one address, seen with one key."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        attempts: int = _ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Talk to ``url``; ``attempts`` bounds how often one call is made.

        Raises ClientError for what is no address.
        """
        self.url = url.rstrip("/")
        self._attempts = attempts
        self._sleep = sleep
        headers = {"Accept": "application/json, application/problem+json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT)
        except httpx.InvalidURL as error:
            raise errors.ClientError(
                f"got address {url!r}, expected one like http://localhost:8000 ({error})"
            ) from error

    def __enter__(self) -> "Api":
        """Return itself; leaving closes the connections."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, **options: Any) -> Json:  # noqa: ANN401
        """GET a JSON object. Raises ApiError, UnreachableError."""
        return _object(self.call("GET", path, **options))

    def post(self, path: str, body: Json | None = None, **options: Any) -> Json:  # noqa: ANN401
        """POST a JSON object and return the answer's. Raises ApiError, UnreachableError."""
        return _object(self.call("POST", path, json=body, **options))

    def call(
        self,
        method: str,
        path: str,
        *,
        content: Content | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> httpx.Response:
        """Make one call with retries; 2xx and 304 are returned.

        Raises ApiError for every other status and UnreachableError when nothing answers.
        """
        sent = dict(headers or {})
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        repeatable = method in _IDEMPOTENT or idempotency_key is not None

        def attempt() -> httpx.Response:
            body = None if content is None else content()
            return self._client.request(method, path, headers=sent, content=body, **options)

        return self._with_retries(attempt, repeatable=repeatable)

    @contextlib.contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """Open a GET whose body is read piece by piece; the caller handles a cut body.

        Raises ApiError and UnreachableError like ``call``.
        """

        def attempt() -> httpx.Response:
            request = self._client.build_request("GET", path, headers=dict(headers or {}))
            response = self._client.send(request, stream=True)
            if response.is_error:
                response.read()
                response.close()
            return response

        response = self._with_retries(attempt, repeatable=True)
        try:
            yield response
        finally:
            response.close()

    def _with_retries(
        self, attempt: Callable[[], httpx.Response], *, repeatable: bool
    ) -> httpx.Response:
        for left in range(self._attempts - 1, -1, -1):
            try:
                response = attempt()
            except httpx.TransportError as error:
                never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if left == 0 or not (repeatable or never_sent):
                    raise self._unreachable(error) from error
                self._sleep(_pause(self._attempts - left, None))
                continue
            if not _asks_to_repeat(response, repeatable=repeatable) or left == 0:
                return _checked(response)
            self._sleep(_pause(self._attempts - left, response.headers.get("Retry-After")))
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, error: httpx.TransportError) -> errors.UnreachableError:
        what = str(error) or type(error).__name__
        return errors.UnreachableError(
            f"no service at {self.url} ({what}); start one with `salun up`, or set SALUN_URL"
        )


def path(*parts: object) -> str:
    """Return the path of a resource; names given by users are quoted."""
    return "/" + "/".join(urllib.parse.quote(str(part), safe=":") for part in parts)


def file_content(source: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Content:
    """Return a streamed body that reads a file; ``on_bytes`` hears the size of each piece."""

    def pieces() -> Iterator[bytes]:
        with source.open("rb") as file:
            while piece := file.read(1 << 18):
                on_bytes(len(piece))
                yield piece

    return pieces


def _asks_to_repeat(response: httpx.Response, *, repeatable: bool) -> bool:
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return True  # it was not even looked at
    return response.status_code == httpx.codes.SERVICE_UNAVAILABLE and repeatable


def _pause(attempts_made: int, retry_after: str | None) -> float:
    """Return seconds to wait: what the service asks for, else doubling with jitter."""
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_PAUSE_SECONDS)
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing
    return min(_LONGEST_PAUSE_SECONDS, 0.25 * 2.0**attempts_made) * jitter


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
        return response
    problem: Json = {"title": response.reason_phrase}
    with contextlib.suppress(ValueError):
        found = response.json()
        if isinstance(found, dict):
            problem |= found
    raise errors.ApiError(response.status_code, problem)


def _object(response: httpx.Response) -> Json:
    if not response.content:
        return {}
    try:
        found = response.json()
    except json.JSONDecodeError as error:
        raise errors.ApiError(
            response.status_code,
            {"title": "not a salun service", "detail": f"{response.url} did not answer with JSON"},
        ) from error
    if not isinstance(found, dict):
        raise errors.ApiError(
            response.status_code,
            {"title": "not a salun service", "detail": "the answer is no JSON object"},
        )
    return found
