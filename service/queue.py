"""The hint over Celery: one id, acknowledged early. PostgreSQL holds the truth.

A hint that gets lost costs seconds, never a job: :func:`relay` sends what the outbox still holds,
and :func:`service.sweeping.sweep` writes new hints for jobs that nobody picked up.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import celery
import kombu.exceptions
import redis.exceptions
import sqlalchemy as sa

from service import database, settings, tables

RUN_JOB = "worker.tasks.run_job"
UNLEARNING = "unlearning"
HOUSEKEEPING = "housekeeping"
OTHER = {UNLEARNING: HOUSEKEEPING, HOUSEKEEPING: UNLEARNING}
RELAY_BATCH = 500
# What is raised where the broker is away.
UNREACHABLE = (OSError, kombu.exceptions.OperationalError, redis.exceptions.RedisError)


@functools.cache
def app() -> celery.Celery:
    """The Celery application that API and worker share."""
    broker_url = settings.load().broker_url
    application = celery.Celery("salun", broker=broker_url)
    application.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=HOUSEKEEPING,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "socket_connect_timeout": 2.0,
            "socket_timeout": 10.0,
            "visibility_timeout": 3600,
        },
        worker_send_task_events=False,
    )
    return application


def relay() -> int:
    """Send what the outbox holds; returns how many left. Raises what the broker raises."""
    with database.transaction() as session:
        messages = session.scalars(
            sa.select(tables.OutboxMessage)
            .where(tables.OutboxMessage.sent_at.is_(None), tables.OutboxMessage.topic == RUN_JOB)
            .order_by(tables.OutboxMessage.id)
            .limit(RELAY_BATCH)
            .with_for_update(skip_locked=True)
        ).all()
        if not messages:
            return 0
        with _connected() as connection:
            for message in messages:
                _send(connection, message)
                message.sent_at = sa.func.clock_timestamp()
        return len(messages)


def backlog(queue_name: str) -> int:
    """How many hints of a queue no worker has taken yet. Raises what the broker raises."""
    with _connected() as connection:
        try:
            declared = connection.default_channel.queue_declare(queue_name, passive=True)
        except kombu.exceptions.ChannelError:
            return 0  # Redis has no empty lists: no such queue
        return int(declared.message_count)


@contextlib.contextmanager
def _connected() -> Iterator[Any]:
    with app().connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=3)
        yield connection


def _send(connection: object, message: tables.OutboxMessage) -> None:
    app().send_task(
        RUN_JOB,
        args=[message.payload["job_id"]],
        queue=message.payload["queue"],
        connection=connection,
        retry=False,
    )
