"""The service layer in this process, on a database of its own beside the running one."""

import contextlib
from collections.abc import Iterator, Sequence

import psycopg
import pytest
import sqlalchemy as sa

from client.local import stack
from migrations import __main__ as migrations
from service import database, queue, settings, tables


@contextlib.contextmanager
def on_database(
    running: stack.Running, name: str, statements: Sequence[str] = (), **environment: str
) -> Iterator[sa.Engine]:
    """This process's service layer on a new, migrated database; may be used inside another's."""
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = running.database_url.replace("/salun?", f"/{name}?")
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    caches = (settings.load, database.engine, queue.app)
    with pytest.MonkeyPatch.context() as patched:
        own = {
            "DATABASE_URL": url,
            "BROKER_URL": running.broker_url,
            "SALUN_DATA_DIR": str(running.folder.root / name),
            **environment,
        }
        for variable, value in own.items():
            patched.setenv(variable, value)
        for cached in caches:
            cached.cache_clear()
        migrations.upgrade("head")
        engine = database.engine()
        yield engine
        # Another one, where a database inside this one has dropped the first from the cache.
        for one in {engine, database.engine()}:
            one.dispose()
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="session")
def migrated(running: stack.Running) -> Iterator[sa.Engine]:
    """The engine on an empty, migrated database."""
    environment = {"SALUN_LEASE_SECONDS": "2", "SALUN_BATCH_WINDOW_SECONDS": "0"}
    with on_database(running, "unit", **environment) as engine:
        yield engine


@pytest.fixture
def empty(migrated: sa.Engine) -> sa.Engine:
    """The same with no rows."""
    names = ", ".join(f'"{table.name}"' for table in tables.Base.metadata.sorted_tables)
    with migrated.begin() as connection:
        connection.execute(sa.text(f"TRUNCATE {names} CASCADE"))
    return migrated
