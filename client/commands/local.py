"""``salun up`` and ``salun demo``: a whole service on this machine."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from client import console, errors, settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where everything is kept [env SALUN_DATA_DIR, else .salun]"),
]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port of the API [env PORT, else 8000]")
]


def up(
    data_dir: DataDir = None,
    port: Port = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line")] = False,
) -> None:
    """Start the whole service on this machine and keep it running until Ctrl-C.

    A real PostgreSQL and a real Valkey, the API, two workers and the sweeper. Whatever dies is
    started again; logs are in DATA_DIR/logs. DATABASE_URL and BROKER_URL replace the two servers.

    Example: PORT=9000 salun up
    """
    with console.reported_errors(as_json=as_json):
        try:
            from client.local import guardian  # needs the extra
        except ModuleNotFoundError as error:
            raise errors.LocalServerError(
                f"{error.name} is missing; install the extra `salun-service[local]`"
            ) from error
        configured = settings.load()
        status = guardian.up(
            configured.data_dir if data_dir is None else data_dir,
            port=configured.port if port is None else port,
            database_url=configured.database_url,
            broker_url=configured.broker_url,
            as_json=as_json,
        )
    raise typer.Exit(status)


def demo(
    context: typer.Context,
    data_dir: DataDir = None,
    port: Port = None,
) -> None:
    """Show the whole product on real data: train, forget, verify, pull, check. Takes minutes.

    Further options go to the demo itself (`python -m demo --help`).

    Example: salun demo
    """
    with console.reported_errors(as_json=False):
        configured = settings.load()
    chosen = configured.data_dir if data_dir is None else data_dir
    environment = settings.child_environment(
        SALUN_DATA_DIR=str(chosen), PORT=str(configured.port if port is None else port)
    )
    command = [sys.executable, "-m", "demo", *context.args]
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
