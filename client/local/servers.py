"""PostgreSQL and Valkey together on one data folder; addresses from outside replace them.

>>> with servers.running(Path(".salun")) as running:  # doctest: +SKIP
...     running.database_url, running.broker_url
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from client.local import folders, postgres, valkey


@dataclasses.dataclass(frozen=True)
class Servers:
    """The addresses, and the servers behind them (None where the address came from outside).

    ``postgres`` and ``valkey`` have ``start()``, ``stop()``, ``kill()`` and ``pid`` for tests that
    inject faults; after a stop or kill, ``start()`` brings the same address back.
    """

    folder: folders.DataFolder
    database_url: str
    broker_url: str
    postgres: postgres.Postgres | None
    valkey: valkey.Valkey | None


@contextlib.contextmanager
def running(
    data_dir: Path,
    *,
    database_url: str | None = None,
    broker_url: str | None = None,
    postgres_options: Mapping[str, str] | None = None,
) -> Iterator[Servers]:
    """Start what has no address, yield, and stop it in reverse order.

    The servers end with the calling *thread* even if it is killed. Raises DataDirInUseError when
    another launcher works on ``data_dir``, LocalServerError when a server does not start.
    """
    with (
        described(
            data_dir,
            database_url=database_url,
            broker_url=broker_url,
            postgres_options=postgres_options,
        ) as servers,
        contextlib.ExitStack() as stack,
    ):
        for server in (servers.postgres, servers.valkey):
            if server is not None:
                stack.callback(server.stop)
                server.start()
        yield servers


@contextlib.contextmanager
def described(
    data_dir: Path,
    *,
    database_url: str | None = None,
    broker_url: str | None = None,
    postgres_options: Mapping[str, str] | None = None,
) -> Iterator[Servers]:
    """Lock the data folder and lay out its servers without starting them."""
    folder = folders.DataFolder.prepare(data_dir)
    with folders.locked(folder), folders.socket_folder(folder) as sockets:
        database = broker = None
        if database_url is None:
            database = postgres.Postgres(
                folder.postgres, sockets, folder.logs / "postgres.log", postgres_options
            )
        if broker_url is None:
            broker = valkey.Valkey(folder.valkey, sockets, folder.logs / "valkey.log")
        yield Servers(
            folder=folder,
            database_url=database.url if database else str(database_url),
            broker_url=broker.url if broker else str(broker_url),
            postgres=database,
            valkey=broker,
        )
