"""A model over small rows of a ledger, and what became of demands, for tests of the service."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from benchmarks import bare_models
from service import batches, database, forget_requests, jobs, pace, tables

SAMPLES = 240
HOUR = {"batch_window_seconds": 3600.0}


def new_model(policy: Mapping[str, Any], name: str = "net", count: int = SAMPLES) -> str:
    """A model with a head version over training samples of two classes."""
    bare_models.dataset(f"data-of-{name}", count)
    bare_models.model(name, f"data-of-{name}", policy)
    return name


def request(request_id: uuid.UUID) -> tables.ForgetRequest:
    """The request as it stands."""
    with database.transaction() as session:
        found = forget_requests.by_id(session, request_id)
        session.expunge(found)
        return found


def batches_of(request_id: uuid.UUID) -> Sequence[tables.Batch]:
    """The batches that a request waits for, oldest first."""
    with database.transaction() as session:
        found = session.scalars(
            sa.select(tables.Batch)
            .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
            .where(tables.BatchMember.request_id == request_id)
            .order_by(tables.Batch.id)
        ).all()
        session.expunge_all()
        return found


def erased_by(batch_id: uuid.UUID) -> list[str]:
    """What a batch is to erase."""
    with database.transaction() as session:
        return batches.sample_ids(session, batch_id)


def queued(model: str) -> Sequence[tables.Job]:
    """The model's jobs that wait, the most urgent first."""
    with database.transaction() as session:
        row = session.scalars(sa.select(tables.Model).where(tables.Model.name == model)).one()
        found = session.scalars(
            sa.select(tables.Job)
            .where(tables.Job.line == pace.line_of(row.id), tables.Job.status == "queued")
            .order_by(tables.Job.due_at)
        ).all()
        session.expunge_all()
        return found


def shift(request_id: uuid.UUID, days: float) -> None:
    """Let that many days go by for a request: move all its times back."""
    with database.transaction() as session:
        session.execute(
            sa.text(
                "UPDATE forget_request SET received_at = received_at - make_interval(secs => :s), "
                "due_at = due_at - make_interval(secs => :s), "
                "paused_at = paused_at - make_interval(secs => :s) WHERE id = :id"
            ),
            {"s": days * 86_400, "id": request_id},
        )


def finished_job(model: str, seconds: float) -> None:
    """Note a finished job of the model that took so long."""
    with database.transaction() as session:
        row = session.scalars(sa.select(tables.Model).where(tables.Model.name == model)).one()
        job = jobs.enqueue(
            session, jobs.UNLEARNING, line=pace.line_of(row.id), subject_id=uuid.uuid4()
        )
        job.status = "succeeded"
        session.flush()
        session.execute(
            sa.text(
                "UPDATE job SET finished_at = clock_timestamp(), "
                "started_at = clock_timestamp() - make_interval(secs => :s) WHERE id = :id"
            ),
            {"s": seconds, "id": job.id},
        )
