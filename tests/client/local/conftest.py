"""A launcher in a process of its own, so that it can be killed."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from client.local import processes

_LAUNCHER = """
import sys, time
from pathlib import Path
from client.local import servers
with servers.running(Path(sys.argv[1])) as running:
    print(running.postgres.pid, running.valkey.pid, flush=True)
    time.sleep(600)
"""

Orphans = tuple[int, int]


@pytest.fixture
def orphaned_servers() -> Callable[[Path], AbstractContextManager[Orphans]]:
    """Start both servers, freeze them, and SIGKILL their launcher.

    Frozen, they cannot act on the news of its death: two orphans that still hold the data folder.
    """

    @contextlib.contextmanager
    def orphan(data_dir: Path) -> Iterator[Orphans]:
        launcher = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(data_dir)], stdout=subprocess.PIPE, text=True
        )
        with launcher:
            assert launcher.stdout is not None
            postgres_pid, valkey_pid = map(int, launcher.stdout.readline().split())
            for pid in (postgres_pid, valkey_pid):
                os.kill(pid, signal.SIGSTOP)
            launcher.kill()
        assert processes.is_running(postgres_pid)
        assert processes.is_running(valkey_pid)
        yield postgres_pid, valkey_pid
        assert not processes.is_running(postgres_pid)
        assert not processes.is_running(valkey_pid)

    return orphan
