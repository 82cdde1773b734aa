import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest

from client import errors
from client.local import folders, launch, postgres, processes, servers


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may pass through (pytest's own are private)."""
    folder = Path(tempfile.mkdtemp(prefix="salun-test-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def write_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert found is not None
    return int(found[0])


def setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert found is not None
    return str(found[0])


def test_it_is_reachable_by_a_private_socket_only(tmp_path: Path) -> None:
    with servers.running(tmp_path / "data") as running:
        assert setting(running.database_url, "listen_addresses") == ""
        assert setting(running.database_url, "server_encoding") == "UTF8"
        sockets = Path(setting(running.database_url, "unix_socket_directories"))
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data" / "postgres").stat().st_mode) == 0o700
        assert running.postgres is not None
        assert running.postgres.pid is not None
        table = Path(f"/proc/{running.postgres.pid}/net/tcp").read_text(encoding="ascii")
        inodes = {line.split()[9] for line in table.splitlines()[1:]}
        descriptors = Path(f"/proc/{running.postgres.pid}/fd").iterdir()
        targets = {str(descriptor.readlink()) for descriptor in descriptors}
        assert not targets & {f"socket:[{inode}]" for inode in inodes}


def test_data_survives_a_clean_stop_and_a_kill(tmp_path: Path) -> None:
    with servers.running(tmp_path) as running:
        write_row(running.database_url)
        assert running.postgres is not None
        running.postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(running.database_url)
        running.postgres.start()
        assert rows(running.database_url) == 1
        running.postgres.stop()
        running.postgres.start()
        assert rows(running.database_url) == 1
    with servers.running(tmp_path) as running:
        assert rows(running.database_url) == 1


def test_nothing_is_left_running(tmp_path: Path) -> None:
    with servers.running(tmp_path) as running:
        write_row(running.database_url)
        assert processes.ServerMark("postgres", running.folder.postgres).find()
    assert not processes.ServerMark("postgres", running.folder.postgres).find()
    assert not list(running.folder.run.iterdir())


def test_orphans_of_a_killed_launcher_are_taken_over(
    tmp_path: Path, orphaned_servers: Callable[[Path], AbstractContextManager[tuple[int, int]]]
) -> None:
    with servers.running(tmp_path) as running:
        write_row(running.database_url)
    with orphaned_servers(tmp_path), servers.running(tmp_path) as running:
        assert rows(running.database_url) == 1


def test_a_stale_pid_file_that_names_a_stranger_leaves_the_stranger_alone(tmp_path: Path) -> None:
    with servers.running(tmp_path) as running:
        write_row(running.database_url)
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        lines = [str(stranger.pid), str(running.folder.postgres), "1", "5432", "", "", ""]
        (running.folder.postgres / "postmaster.pid").write_text("\n".join(lines), encoding="ascii")
        (running.folder.run / ".s.PGSQL.5432").touch()
        (running.folder.run / ".s.PGSQL.5432.lock").write_text("\n".join(lines), encoding="ascii")
        with servers.running(tmp_path) as running:
            assert rows(running.database_url) == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("name", ["deep" * 40, "with space, comma & ümlaut"])
def test_a_path_that_no_socket_can_have_gets_a_temporary_socket_folder(
    tmp_path: Path, name: str
) -> None:
    with servers.running(tmp_path / name) as running:
        write_row(running.database_url)
        sockets = Path(setting(running.database_url, "unix_socket_directories"))
        assert not sockets.is_relative_to(tmp_path)
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_a_temporary_socket_folder_that_others_may_read_is_refused(tmp_path: Path) -> None:
    folder = folders.DataFolder.prepare(tmp_path / ("deep" * 40))
    with folders.socket_folder(folder) as sockets:
        pass
    sockets.mkdir(mode=0o755)
    try:
        with (
            pytest.raises(errors.LocalServerError, match="not a private folder"),
            folders.socket_folder(folder),
        ):
            pytest.fail("a folder that others may read was accepted")
    finally:
        sockets.rmdir()


def test_a_data_folder_serves_one_launcher_at_a_time(tmp_path: Path) -> None:
    with (
        servers.running(tmp_path),
        pytest.raises(errors.DataDirInUseError, match=str(os.getpid())),
        servers.running(tmp_path),
    ):
        pytest.fail("a second launcher got in")


def test_half_an_initdb_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n", encoding="ascii")
    with servers.running(tmp_path) as running:
        write_row(running.database_url)
    assert not (tmp_path / "postgres.new").exists()


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(mode=0o700)
    (tmp_path / "postgres" / "PG_VERSION").write_text("12\n", encoding="ascii")
    with (
        pytest.raises(errors.LocalServerError, match=r"PostgreSQL 12, expected \d+"),
        servers.running(tmp_path),
    ):
        pytest.fail("it started")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(errors.LocalServerError, match="shared_buffers"),
        servers.running(tmp_path, postgres_options={"shared_buffers": "nonsense"}),
    ):
        pytest.fail("it started")


def test_an_address_from_outside_replaces_the_server(tmp_path: Path) -> None:
    with (
        servers.running(tmp_path / "one") as first,
        servers.running(
            tmp_path / "two", database_url=first.database_url, broker_url=first.broker_url
        ) as second,
    ):
        assert second.postgres is None
        assert second.valkey is None
        assert second.database_url == first.database_url
        assert not second.folder.postgres.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_root_it_can_drop_to_nobody_and_come_back(open_folder: Path) -> None:
    folder = folders.DataFolder.prepare(open_folder / "data")
    for identity, owner in (("drop", launch.NOBODY), ("namespace", 0), ("drop", launch.NOBODY)):
        server = postgres.Postgres(
            folder.postgres, folder.run, folder.logs / "postgres.log", identity=identity
        )
        server.start()
        try:
            write_row(server.url)
            assert server.pid is not None
            assert Path(f"/proc/{server.pid}").stat().st_uid in (owner, 0)
            assert folder.postgres.stat().st_uid == owner
        finally:
            server.stop()
    server.start()
    assert rows(server.url) == 3
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_dropping_to_nobody_needs_a_way_to_the_data(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    folder = folders.DataFolder.prepare(closed / "below" / "data")
    server = postgres.Postgres(
        folder.postgres, folder.run, folder.logs / "postgres.log", identity="drop"
    )
    with pytest.raises(errors.LocalServerError, match=f"may not pass {closed}"):
        server.start()
