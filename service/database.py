"""One engine for each process, and the transaction that every caller works in."""

import contextlib
import datetime
import functools
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy import orm

from service import settings


@functools.cache
def engine() -> sa.Engine:
    """The process-wide engine; made on first use, so that a forked worker gets its own."""
    return sa.create_engine(
        driver_url(settings.load().database_url),
        pool_size=20,
        max_overflow=20,
        pool_pre_ping=True,
    )


def driver_url(url: str) -> sa.URL:
    """``postgresql://…`` as operators write it, with the driver that we use."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        msg = f"DATABASE_URL: got {parsed.get_backend_name()!r}, expected postgresql://…"
        raise ValueError(msg)
    return parsed.set(drivername="postgresql+psycopg")


def now(session: orm.Session) -> datetime.datetime:
    """The time by the database's clock, which all processes share."""
    moment: datetime.datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
    return moment


@contextlib.contextmanager
def transaction() -> Iterator[orm.Session]:
    """A session that commits when the block ends and rolls back when it raises."""
    with orm.Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session
