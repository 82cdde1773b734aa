"""How long a model's jobs take, and how many wait: what deadlines are reckoned with."""

import datetime
import math
import uuid

import sqlalchemy as sa
from sqlalchemy import orm

from service import jobs, tables

FIRST_GUESS_SECONDS = 300.0


def line_of(model_id: uuid.UUID) -> str:
    """The line on which a model's unlearning jobs run, one at a time."""
    return f"model:{model_id}"


def lines_over(session: orm.Session, dataset_id: uuid.UUID) -> list[str]:
    """The lines of all models over a dataset."""
    over_it = sa.select(tables.Model.id).where(tables.Model.dataset_id == dataset_id)
    return [line_of(model_id) for model_id in session.scalars(over_it)]


def jobs_ahead(session: orm.Session, model_id: uuid.UUID) -> int:
    """How many of the model's jobs wait or run."""
    return session.scalar(waiting(sa.literal(line_of(model_id)))) or 0


def typical_job_seconds(session: orm.Session, model_id: uuid.UUID) -> float:
    """95th percentile of the model's finished jobs; 5 minutes before the first."""
    return or_first_guess(session.scalar(run_seconds(sa.literal(line_of(model_id)))))


def or_first_guess(typical: float | None) -> float:
    """What :func:`run_seconds` gave, or a guess where no job has finished."""
    return FIRST_GUESS_SECONDS if typical is None else float(typical)


def expected_end(
    begins_at: datetime.datetime, runs: int, each_seconds: float, now: datetime.datetime
) -> datetime.datetime:
    """When the last of so many runs ends, the first of which begins then.

    What should have ended already is expected one run from now, and moves on in steps of a run, so
    that who polls does not see another time with every look.
    """
    each = max(each_seconds, 1.0)
    ends_at = begins_at + datetime.timedelta(seconds=runs * each)
    late = (now - ends_at).total_seconds()
    if late <= 0:
        return ends_at
    return ends_at + datetime.timedelta(seconds=math.ceil(late / each) * each)


def waiting(line: sa.ColumnElement[str]) -> sa.Select[int]:
    """The statement behind :func:`jobs_ahead`, to be part of another one."""
    return (
        sa.select(sa.func.count())
        .select_from(tables.Job)
        .where(tables.Job.line == line, tables.Job.status.in_(jobs.UNFINISHED))
    )


def run_seconds(line: sa.ColumnElement[str]) -> sa.Select[float | None]:
    """The statement behind :func:`typical_job_seconds`; null before the first finished job."""
    run_time = sa.func.extract("epoch", tables.Job.finished_at - tables.Job.started_at)
    return sa.select(sa.func.percentile_cont(0.95).within_group(run_time)).where(
        tables.Job.line == line,
        tables.Job.kind == jobs.UNLEARNING,
        tables.Job.status == "succeeded",
    )
