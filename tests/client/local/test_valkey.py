from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis
from kombu import connection as kombu_connection

from client.local import servers


def connect(running: servers.Servers) -> "redis.Redis":
    assert running.valkey is not None
    return redis.Redis(unix_socket_path=str(running.valkey.socket))


def connect_as_celery_does(running: servers.Servers) -> kombu_connection.Connection:
    return kombu_connection.Connection(running.broker_url)  # type: ignore[no-untyped-call]


def put(running: servers.Servers, body: str) -> None:
    with connect_as_celery_does(running) as connection:
        queue = connection.SimpleQueue("hints")
        queue.put(body)
        queue.close()


def get(running: servers.Servers) -> object:
    with connect_as_celery_does(running) as connection:
        queue = connection.SimpleQueue("hints")
        message = queue.get(timeout=5)
        message.ack()
        queue.close()
        return message.payload


def test_it_listens_on_a_private_socket_only(tmp_path: Path) -> None:
    with servers.running(tmp_path) as running:
        client = connect(running)
        assert client.config_get("port") == {"port": "0"}
        assert running.valkey is not None
        assert running.valkey.socket.stat().st_mode & 0o777 == 0o700
        client.close()


def test_accepted_hints_survive_a_kill_and_a_stop(tmp_path: Path) -> None:
    with servers.running(tmp_path) as running:
        put(running, "first")
        put(running, "second")
        assert running.valkey is not None
        running.valkey.kill()
        running.valkey.start()
        assert get(running) == "first"
    with servers.running(tmp_path) as running:
        assert get(running) == "second"


def test_an_orphan_is_taken_over_with_its_hints(
    tmp_path: Path, orphaned_servers: Callable[[Path], AbstractContextManager[tuple[int, int]]]
) -> None:
    with servers.running(tmp_path) as running:
        put(running, "kept")
    with orphaned_servers(tmp_path), servers.running(tmp_path) as running:
        assert get(running) == "kept"


@pytest.mark.parametrize("name", ["deep" * 40, "with space, comma & ümlaut"])
def test_it_starts_on_paths_that_no_socket_can_have(tmp_path: Path, name: str) -> None:
    with servers.running(tmp_path / name) as running:
        put(running, "x")
        assert get(running) == "x"


def test_a_truncated_log_is_cut_where_it_is_whole(tmp_path: Path) -> None:
    with servers.running(tmp_path) as running:
        put(running, "kept")
    log = next((running.folder.valkey / "appendonlydir").glob("*.incr.aof"))
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nhal")  # what a power cut leaves
    with servers.running(tmp_path) as running:
        assert get(running) == "kept"
