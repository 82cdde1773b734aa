"""One engine for each process, and the transaction that every caller works in."""

import contextlib
import datetime
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import settings

# How soon a server that went silent, not one that is busy, is given up: seconds; milliseconds.
_NOTICE_SILENCE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
A_DAY = 86_400.0  # seconds


class Names(sa.types.TypeDecorator[Sequence[str]]):
    """Parameter: a ``text[]`` that travels as one text of JSON.

    psycopg writes an array item by item in Python, which takes several times as long; a demand may
    have 100,000 ids, and they are needed in statement after statement.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: sa.Dialect) -> str | None:
        """The names as JSON."""
        del dialect
        return None if value is None else json.dumps(list(value))

    def bind_expression(self, bindvalue: sa.BindParameter[Any]) -> sa.ColumnElement[Any]:
        """The array that the server makes of it."""
        items = sa.func.json_array_elements_text(sa.cast(bindvalue, postgresql.JSON))
        return sa.func.array(sa.select(items).scalar_subquery(), type_=sa.ARRAY(sa.Text))


@functools.cache
def engine() -> sa.Engine:
    """The process-wide engine; made on first use, so that a forked worker gets its own."""
    return engine_for(settings.load().database_url)


def engine_for(database_url: str) -> sa.Engine:
    """An engine for a database, as all processes have one."""
    made = sa.create_engine(
        driver_url(database_url),
        pool_size=20,
        max_overflow=20,
        pool_pre_ping=True,
        hide_parameters=True,  # of what goes wrong; they name persons
    )
    sa.event.listen(made, "connect", _reckon_in_utc)
    return made


def connection_arguments() -> dict[str, Any]:
    """What a connection beside the engine's is opened with, to the same place."""
    _, arguments = engine().dialect.create_connect_args(engine().url)
    return dict(arguments)


def _reckon_in_utc(connection: psycopg.Connection, _: object) -> None:
    """Due dates are reckoned in UTC, whatever the server's own time zone."""
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def driver_url(url: str) -> sa.URL:
    """``postgresql://…`` as operators write it, with our driver and what they left open."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        msg = f"DATABASE_URL: got {parsed.get_backend_name()!r}, expected postgresql://…"
        raise ValueError(msg)
    return parsed.set(drivername="postgresql+psycopg", query={**_NOTICE_SILENCE, **parsed.query})


def json_texts(document: sa.SQLColumnExpression[Any], path: str) -> sa.ColumnElement[str]:
    """The texts that a JSON path finds in a document, a row each."""
    found = sa.func.jsonb_path_query(document, sa.cast(path, postgresql.JSONPATH))
    return found.op("#>>", return_type=sa.Text())(sa.cast([], postgresql.ARRAY(sa.Text)))


def now(session: orm.Session) -> datetime.datetime:
    """The time by the database's clock, which all processes share."""
    moment: datetime.datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
    return moment


def end_if_silent(seconds: float | None = None) -> sa.Function[str]:
    """Selected in a transaction, lets it end when its process says nothing for so long: a lease.

    Who is frozen in it holds what it locked, a job's row or what its successor brings into the
    store, and nobody could overtake it for as long as it sleeps. ``A_DAY`` is for one that writes
    or deletes files, as many and as large as they may be.
    """
    patience = f"{settings.load().lease_seconds if seconds is None else seconds}s"
    return sa.func.set_config("idle_in_transaction_session_timeout", patience, sa.true())


@contextlib.contextmanager
def transaction() -> Iterator[orm.Session]:
    """A session that commits when the block ends and rolls back when it raises."""
    with orm.Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session
