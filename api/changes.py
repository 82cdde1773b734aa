"""Wakes those who wait: one connection listens for PostgreSQL's notifications, for all of them."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator

import psycopg

from service import database, telling

_log = logging.getLogger("salun.api")
RECONNECT_SECONDS = 1.0


class Changes:
    """Fans notifications out to the calls of this process that watch a key."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watching(self, keys: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of the keys changes."""
        signal, watched = asyncio.Event(), set(keys)
        for key in watched:
            self._watchers.setdefault(key, set()).add(signal)
        try:
            yield signal
        finally:
            for key in watched:
                self._watchers[key].discard(signal)
                if not self._watchers[key]:
                    del self._watchers[key]

    async def listen(self) -> None:
        """Listen until cancelled; a lost connection wakes everybody and is made again."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    autocommit=True, **database.connection_arguments()
                ) as connection:
                    await connection.execute(f"LISTEN {telling.CHANNEL}")
                    self._wake_all()
                    async for notification in connection.notifies():
                        self._wake(notification.payload)
            except psycopg.Error as error:
                _log.warning("listening again after %s", type(error).__name__)
                self._wake_all()
                await asyncio.sleep(RECONNECT_SECONDS)

    def _wake(self, key: str) -> None:
        for signal in self._watchers.get(key, ()):
            signal.set()

    def _wake_all(self) -> None:
        for key in self._watchers:
            self._wake(key)
