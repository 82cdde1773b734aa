import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client import errors, http


@pytest.fixture
def served(registry: Any) -> Any:
    registry.publish(1, {"config.json": b"{}"})
    return registry


@contextlib.contextmanager
def line_that_hangs_up() -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads one request and closes; yields its address and what it got."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    with connection:
                        got.append(connection.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", got
        stop.set()
        thread.join()


def test_a_problem_becomes_one_line(served: Any, api: http.Api) -> None:
    served.statuses = [(409, {})]
    with pytest.raises(errors.ApiError, match="409 told to fail") as caught:
        api.get("/v1/models/digits/versions/1")
    assert caught.value.status == 409
    assert caught.value.kind == "about:blank"


@pytest.mark.parametrize("status", [429, 503])
def test_a_call_is_repeated_when_the_service_asks_for_it(served: Any, status: int) -> None:
    served.statuses = [(status, {"Retry-After": "7"}), (status, {})]
    pauses: list[float] = []
    with http.Api(served.url, "key", sleep=pauses.append) as api:
        assert api.get("/v1/models/digits/versions/1") == {"version": 1}
    assert pauses[0] == 7.0
    assert 0 < pauses[1] < 2.0


def test_repeating_ends(served: Any) -> None:
    served.statuses = [(503, {})] * 9
    with (
        http.Api(served.url, "key", attempts=3, sleep=lambda _: None) as api,
        pytest.raises(errors.ApiError, match="503"),
    ):
        api.get("/v1/models/digits/versions/1")
    assert len(served.asked) == 3


def test_other_errors_are_not_repeated(served: Any, api: http.Api) -> None:
    served.statuses = [(500, {}), (500, {})]
    with pytest.raises(errors.ApiError, match="500"):
        api.get("/v1/models/digits/versions/1")
    assert len(served.asked) == 1


def test_a_post_that_may_have_arrived_is_not_repeated_blindly() -> None:
    with line_that_hangs_up() as (url, got), http.Api(url, "key", sleep=lambda _: None) as api:
        with pytest.raises(errors.UnreachableError):
            api.post("/v1/models", {})
        assert len(got) == 1


def test_a_post_with_an_idempotency_key_is_repeated_with_the_same_key() -> None:
    with (
        line_that_hangs_up() as (url, got),
        http.Api(url, "key", attempts=3, sleep=lambda _: None) as api,
    ):
        with pytest.raises(errors.UnreachableError):
            api.post("/v1/forget-requests", {}, idempotency_key="once")
        assert len(got) == 3
        assert all(b"idempotency-key: once" in request.lower() for request in got)


def test_no_service_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        http.Api(f"http://127.0.0.1:{port}", "key", attempts=2, sleep=lambda _: None) as api,
        pytest.raises(errors.UnreachableError, match="start one with `salun up`"),
    ):
        api.get("/v1/models")


def test_names_are_quoted_in_paths() -> None:
    assert http.path("v1", "models", "a/b c", "versions", 3) == "/v1/models/a%2Fb%20c/versions/3"


def test_file_content_can_be_read_twice_and_counts(tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"x" * 600_000)
    counted: list[int] = []
    content = http.file_content(source, counted.append)
    assert b"".join(content()) == b"".join(content()) == b"x" * 600_000
    assert sum(counted) == 1_200_000
