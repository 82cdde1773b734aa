import signal
import subprocess
import sys
import time
from pathlib import Path

from client.local import launch, processes

_PARENT = """
import subprocess, sys, time, signal
from client.local import launch
child = subprocess.Popen(launch.command(["/bin/sleep", "60"], death_signal=signal.SIGTERM))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_that_is_no_longer_ours_gets_no_signal() -> None:
    process = subprocess.Popen(["/bin/sleep", "60"])
    try:
        left = processes.end([process.pid], [(signal.SIGKILL, 0.5)], still_ours=lambda _: False)
        assert left == []
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_signals_escalate_until_the_process_has_ended() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert processes.end([process.pid], [(signal.SIGTERM, 0.2)]) == [process.pid]
        steps = [(signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0)]
        assert processes.end([process.pid], steps) == []
        assert process.wait() == -signal.SIGKILL


def test_a_stopped_process_still_ends_cleanly() -> None:
    process = subprocess.Popen(["/bin/sleep", "60"])
    process.send_signal(signal.SIGSTOP)
    assert processes.end([process.pid], [(signal.SIGTERM, 5.0)]) == []
    assert process.wait() == -signal.SIGTERM


def test_a_server_is_recognised_by_program_and_folder_together(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], cwd=tmp_path) as process:
        try:
            program = Path(f"/proc/{process.pid}/exe").readlink().name
            assert processes.ServerMark(program, tmp_path).find() == [process.pid]
            assert processes.ServerMark("postgres", tmp_path).find() == []
            assert processes.ServerMark(program, tmp_path / "other").find() == []
        finally:
            process.kill()


def test_a_child_ends_with_the_process_that_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert child in processes.descendants_of(parent.pid)
        parent.kill()
    assert processes.wait_gone([child], 5.0) == []


def test_a_child_whose_parent_is_already_gone_does_not_start(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = launch.command(["/usr/bin/touch", str(started)], death_signal=signal.SIGKILL)
    # Run by a shell, its parent is not the process that the command line names.
    script = " ".join(f"'{part}'" for part in command) + "; exit $?"
    done = subprocess.run(["/bin/sh", "-c", script], check=False)
    assert done.returncode == launch.FAILED
    assert not started.exists()


def test_waiting_for_a_process_that_stays_is_bounded() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            began = time.monotonic()
            assert processes.wait_gone([process.pid], 0.2) == [process.pid]
            assert time.monotonic() - began < 5.0
        finally:
            process.kill()
