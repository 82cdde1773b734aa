"""Stops a transaction of another process at an exact place: inside a statement that it makes.

A trigger on the table waits for an advisory lock that the test holds. Whoever waits there has done
everything before the statement and nothing after it, holds the locks of its transaction, and can
be killed, frozen or cut off before the lock is given.
"""

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

_LOCK = 4_711_000  # no other advisory lock of the product lies here
_TRIGGER = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock({lock});
  RETURN NEW;
END $$;
CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition})
EXECUTE FUNCTION {name}();
"""


@dataclasses.dataclass
class Breakpoint:
    """One place where whoever comes by waits."""

    connection: psycopg.Connection[tuple[Any, ...]]
    name: str
    lock: int
    url: str

    def reached(self, seconds: float = 60) -> int:
        """Wait until a backend waits here; its process id."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            row = self.connection.execute(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
                "AND ((classid::bigint << 32) | objid::bigint) = %s",
                [self.lock],
            ).fetchone()
            if row is not None:
                return int(row[0])
            time.sleep(0.01)
        pytest.fail(f"nobody came to {self.name} within {seconds} s")

    def let_pass(self) -> None:
        """Let everybody pass; the trigger goes in the end, when nobody holds the table."""
        self.connection.execute("SELECT pg_advisory_unlock_all()")

    def release(self) -> None:
        """Let everybody pass, now and later."""
        if self.connection.closed or self.connection.broken:
            self._connect_again()
        try:
            self._drop()
        except psycopg.OperationalError:  # the server was restarted; its locks went with it
            self._connect_again()
            self._drop()

    def _drop(self) -> None:
        self.connection.execute("SELECT pg_advisory_unlock_all()")
        # Whoever was killed while waiting here holds its locks until its server process notices.
        self.connection.execute("SET lock_timeout = '20s'")
        table = self.connection.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = %s", [self.name]
        ).fetchone()
        if table is not None:
            self.connection.execute(f"DROP TRIGGER {self.name} ON {table[0]}")
            self.connection.execute(f"DROP FUNCTION {self.name}()")

    def _connect_again(self, seconds: float = 30) -> None:
        self.connection.close()
        end = time.monotonic() + seconds
        while self.connection.closed:
            try:
                self.connection = psycopg.connect(self.url, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


@contextlib.contextmanager
def at(database_url: str, table: str, event: str, condition: str) -> Iterator[Breakpoint]:
    """Stop whoever makes such a statement: ``event`` is INSERT or UPDATE, ``condition`` SQL."""
    name = f"breakpoint_{uuid.uuid4().hex[:12]}"
    lock = _LOCK + uuid.uuid4().int % 100_000
    connection = psycopg.connect(database_url, autocommit=True)
    stopped = Breakpoint(connection, name, lock, database_url)
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [lock])
        connection.execute(
            _TRIGGER.format(name=name, lock=lock, event=event, table=table, condition=condition)
        )
        yield stopped
    finally:
        stopped.release()
        stopped.connection.close()
