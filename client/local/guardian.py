"""The outer half of ``salun up``: makes sure that nothing is left whoever is killed.

Two processes watch each other. The guardian (whose id the user sees) starts the supervisor and
adopts orphans: if the supervisor is killed, its children become the guardian's, which ends them. If
the guardian is killed, the kernel tells the supervisor, which stops everything in order. If both
are killed in the same instant, every child still has its own tie to the supervisor's life.
"""

import json
import os
import signal
import socket
import subprocess
import types
from pathlib import Path

from client import errors
from client.local import launch, processes, services

# The children's own ties act first; whoever is left after that is ended.
_END_ORPHANS = ((None, 3.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


def up(
    data_dir: Path,
    *,
    port: int,
    database_url: str | None = None,
    broker_url: str | None = None,
    as_json: bool = False,
) -> int:
    """Run a stack in the foreground until a signal asks to stop; return the exit status.

    ``port`` 0 picks a free one. Raises LocalServerError when the port is busy.
    """
    options = {
        "data_dir": str(data_dir),
        "port": _claim_port(port),
        "database_url": database_url,
        "broker_url": broker_url,
        "as_json": as_json,
        "owner": os.getpid(),
    }
    command = [launch.interpreter(), "-m", "client.local.supervisor", json.dumps(options)]
    launch.adopt_orphans()
    supervisor = subprocess.Popen(
        launch.command(command, death_signal=signal.SIGTERM), start_new_session=True
    )

    def pass_on(_number: int, _frame: types.FrameType | None) -> None:
        supervisor.terminate()

    previous = {
        number: signal.signal(number, pass_on)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        status = supervisor.wait()
        processes.end(processes.descendants_of(os.getpid()), _END_ORPHANS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if status < 0:
        name = signal.Signals(-status).name
        raise errors.LocalServerError(
            f"the supervisor was killed by {name}; what it had started was stopped"
        )
    return status


def _claim_port(port: int) -> int:
    """Return the port, or a free one for 0."""
    with socket.socket() as probe:
        # As the API will: a port that a closed connection still holds counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((services.HOST, port))
        except OSError as error:
            raise errors.LocalServerError(
                f"port {port} is not free ({error.strerror}); stop what uses it, or set PORT"
            ) from error
        return int(probe.getsockname()[1])
