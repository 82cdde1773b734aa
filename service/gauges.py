"""What an operator watches, counted in the database: duties, their slack, work that waits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import orm

from service import deadlines, deployments, fulfilment, jobs, tables

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Gauge:
    """One figure by its labels; names and units as Prometheus wants them."""

    name: str
    description: str
    values: Sequence[tuple[Labels, float]] = field(default_factory=list)


def read(session: orm.Session) -> list[Gauge]:
    """Every gauge as it stands."""
    request, job, now = tables.ForgetRequest, tables.Job, sa.func.clock_timestamp()
    is_open = request.status.in_(fulfilment.OPEN)
    return [
        Gauge(
            "salun_forget_requests",
            "Forget requests by status.",
            _by(
                session,
                sa.select(request.status, sa.func.count()).group_by(request.status),
                "status",
            ),
        ),
        Gauge(
            "salun_forget_requests_alarmed",
            "Open forget requests whose last alarm was at this percentage of their time.",
            _alarmed(session),
        ),
        Gauge(
            "salun_forget_requests_overdue",
            "Open forget requests that are past their due date and whose clock runs.",
            _one(
                session,
                sa.select(sa.func.count()).where(
                    is_open, request.paused_at.is_(None), request.due_at < now
                ),
            ),
        ),
        Gauge(
            "salun_forget_requests_propagating",
            "Forget requests that wait for nothing but deployments which have yet to pull.",
            _one(
                session,
                sa.select(sa.func.count()).where(is_open, request.stage == deployments.PROPAGATING),
            ),
        ),
        Gauge(
            "salun_least_slack_seconds",
            "Time until the most urgent open forget request is due; absent without one.",
            _one(
                session,
                sa.select(sa.func.extract("epoch", sa.func.min(request.due_at) - now)).where(
                    is_open, request.paused_at.is_(None)
                ),
            ),
        ),
        Gauge(
            "salun_jobs",
            "Jobs that wait or run, by queue and status.",
            [
                ({"queue": row.queue, "status": row.status}, float(row.number))
                for row in session.execute(
                    sa.select(job.queue, job.status, sa.func.count().label("number"))
                    .where(job.status.in_(jobs.UNFINISHED))
                    .group_by(job.queue, job.status)
                )
            ],
        ),
        Gauge(
            "salun_oldest_queued_job_seconds",
            "How long the job that waits longest has been claimable, by queue.",
            _by(
                session,
                sa.select(job.queue, sa.func.extract("epoch", now - sa.func.min(job.not_before)))
                .where(job.status == "queued")
                .group_by(job.queue),
                "queue",
            ),
        ),
        Gauge(
            "salun_open_batches",
            "Batches that still take requests.",
            _one(session, sa.select(sa.func.count()).where(tables.Batch.state == "open")),
        ),
        Gauge(
            "salun_outbox_unsent",
            "Messages that have not left yet.",
            _one(session, sa.select(sa.func.count()).where(tables.OutboxMessage.sent_at.is_(None))),
        ),
        Gauge(
            "salun_condemned_contents",
            "Contents that shall leave the store and are still in it.",
            _one(session, sa.select(sa.func.count()).select_from(tables.Condemned)),
        ),
    ]


def _alarmed(session: orm.Session) -> list[tuple[Labels, float]]:
    """Every level, also one that nobody has reached: an alert must not wait for its first row."""
    request = tables.ForgetRequest
    found: dict[int, int] = dict(
        session.execute(
            sa.select(request.alarm_percent, sa.func.count())
            .where(request.status.in_(fulfilment.OPEN))
            .group_by(request.alarm_percent)
        )
        .tuples()
        .all()
    )
    levels = (*deadlines.ALARMS, deadlines.OVERDUE)
    return [({"percent": str(level)}, float(found.get(level, 0))) for level in levels]


def _by(
    session: orm.Session, statement: sa.Select[str, float], label: str
) -> list[tuple[Labels, float]]:
    return [({label: name}, float(value)) for name, value in session.execute(statement).tuples()]


def _one(session: orm.Session, statement: sa.Select[float | None]) -> list[tuple[Labels, float]]:
    value = session.scalar(statement)
    return [] if value is None else [({}, float(value))]
