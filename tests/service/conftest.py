"""The service layer in this process, on a database of its own beside the running one."""

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from client.local import stack
from migrations import __main__ as migrations
from service import database, queue, settings, tables


@pytest.fixture(scope="session")
def migrated(running: stack.Running) -> Iterator[sa.Engine]:
    """The engine on an empty, migrated database."""
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE unit")
    url = running.database_url.replace("/salun?", "/unit?")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", url)
        environment.setenv("BROKER_URL", running.broker_url)
        environment.setenv("SALUN_DATA_DIR", str(running.folder.root / "unit"))
        environment.setenv("SALUN_LEASE_SECONDS", "2")
        environment.setenv("SALUN_BATCH_WINDOW_SECONDS", "0")
        for cached in (settings.load, database.engine, queue.app):
            cached.cache_clear()
        migrations.upgrade("head")
        yield database.engine()
        database.engine().dispose()
        for cached in (settings.load, database.engine, queue.app):
            cached.cache_clear()


@pytest.fixture
def empty(migrated: sa.Engine) -> sa.Engine:
    """The same with no rows."""
    names = ", ".join(f'"{table.name}"' for table in tables.Base.metadata.sorted_tables)
    with migrated.begin() as connection:
        connection.execute(sa.text(f"TRUNCATE {names} CASCADE"))
    return migrated
