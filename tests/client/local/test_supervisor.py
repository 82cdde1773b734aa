"""The whole stack on real processes, and what happens when they are killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from client import errors, http, settings
from client.local import processes, program, stack, supervisor

NAMES = ["postgres", "valkey", "worker", "housekeeping", "sweeper", "api"]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Running]:
    with stack.running(tmp_path_factory.mktemp("up")) as running:
        yield running


@contextlib.contextmanager
def admin(running: stack.Running) -> Iterator[http.Api]:
    with http.Api(running.base_url, running.admin_key) as api:
        yield api


def wait_until_ready(running: stack.Running, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{running.base_url}/readyz").is_success:
                return
        time.sleep(0.05)
    pytest.fail(f"not ready again within {patience} s")


def run_up(data_dir: Path, port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "client.main", "up"],
        env=settings.child_environment(
            SALUN_DATA_DIR=str(data_dir), PORT=str(port), COLUMNS="200", **environment
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_everything_is_up_and_the_admin_key_is_private(up: stack.Running) -> None:
    assert list(up.pids()) == NAMES
    assert all(pid is not None and processes.is_running(pid) for pid in up.pids().values())
    assert up.folder.admin_key.stat().st_mode & 0o777 == 0o600
    with admin(up) as api:
        assert api.get("/v1/api-keys")["items"]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_killed_is_back_within_five_seconds(up: stack.Running, name: str) -> None:
    old_pid = up.pids()[name]
    assert old_pid is not None
    children = processes.descendants_of(old_pid)
    assert up.kill(name) == old_pid
    up.wait_restarted(name, old_pid, patience=5.0)
    wait_until_ready(up, patience=20.0)
    assert processes.wait_gone(children, 5.0) == []
    told = (up.folder.logs / "up.log").read_text(encoding="utf-8").splitlines()
    died = [json.loads(line) for line in told if '"died"' in line]
    assert died[-1]["name"] == name
    assert died[-1]["reason"] == "killed by SIGKILL"
    assert Path(died[-1]["log"]).exists()
    with admin(up) as api:
        assert api.get("/v1/api-keys")["items"]


def test_all_killed_at_once_are_back(up: stack.Running) -> None:
    old = {name: up.kill(name) for name in NAMES}
    for name, pid in old.items():
        up.wait_restarted(name, pid)
    wait_until_ready(up, patience=20.0)


def test_a_second_stack_on_the_same_folder_is_refused(up: stack.Running) -> None:
    done = run_up(up.folder.root, free_port())
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"{up.folder.root} is in use by process {up.supervisor_pid()}" in said
    wait_until_ready(up, patience=1.0)


def test_a_busy_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run_up(tmp_path, port)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"port {port} is not free" in done.stderr
    assert "set PORT" in done.stderr


def test_a_database_that_is_not_there_stops_the_start_and_names_the_log(tmp_path: Path) -> None:
    done = run_up(tmp_path, free_port(), DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert done.returncode == 1
    assert "migrate failed" in done.stdout
    assert str(tmp_path / "logs" / "migrate.log") in done.stdout
    assert "stopped" in done.stdout
    assert not processes.ServerMark("valkey-server", tmp_path / "valkey").find()


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "client.main", "up", "--json"],
        env=settings.child_environment(SALUN_DATA_DIR=str(tmp_path), PORT=str(free_port())),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "ready":
                break
        family = processes.descendants_of(process.pid)
        assert len(family) > len(NAMES)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        said = [json.loads(line)["event"] for line in process.stdout]
    assert said == ["stopping", "stopped"]
    assert [pid for pid in family if processes.is_running(pid)] == []
    assert not (tmp_path / "run" / "state.json").exists()
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


@pytest.mark.parametrize("victims", [("user's",), ("inner",), ("user's", "inner")])
def test_a_killed_supervisor_leaves_nothing_running_and_no_data_lost(
    tmp_path: Path, victims: tuple[str, ...]
) -> None:
    with stack.running(tmp_path) as running:
        with admin(running) as api:
            api.post("/v1/api-keys", {"name": "kept", "scopes": ["models:pull"]})
        family = processes.descendants_of(running.pid)
        pids = {"user's": running.pid, "inner": running.supervisor_pid()}
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        assert processes.wait_gone(family, 40.0) == []
    if len(victims) == 1:  # the hardest end is enough to show that the data is there
        return
    with stack.running(tmp_path) as again, admin(again) as api:
        assert "kept" in [key["name"] for key in api.get("/v1/api-keys")["items"]]
        assert again.admin_key == running.admin_key


def test_waiting_before_a_restart_grows_and_is_bounded(tmp_path: Path) -> None:
    """A killed process waits 0, 0.5, 1, 2, 2, ... s; one that exits by itself at most 30 s."""
    unit = program.Program(
        "unit",
        ["nothing"],
        log=tmp_path / "log",
        environment={},
        folder=tmp_path,
        stop_steps=(),
        death_signal=signal.SIGKILL,
    )
    killed = supervisor.Record(unit, started_at=0.0)
    pauses = [killed.note_death(-9, 1.0) for _ in range(6)]
    assert pauses == [0.0, 0.5, 1.0, 2.0, 2.0, 2.0]
    exited = supervisor.Record(unit, started_at=0.0)
    pauses = [exited.note_death(1, 1.0) for _ in range(12)]
    assert pauses[0] == 0.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
    assert exited.note_death(1, 1000.0) == 0.0  # it had run for long: a clean record


def test_killing_what_is_not_running_is_an_error(up: stack.Running) -> None:
    with pytest.raises(KeyError):
        up.kill("nothing")
    with pytest.raises(errors.LocalServerError, match="was not back"):
        up.wait_restarted("api", up.pids()["api"] or 0, patience=0.1)
