"""Callers, a model over small rows of a ledger, and demands, for tests of the service layer."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from salun_core import specs
from service import api_keys, batches, database, demands, forget_requests, jobs, pace, tables

SAMPLES = 240
LABELS = ("a", "b")
HOUR = {"batch_window_seconds": 3600.0}


def new_caller(name: str = "caller") -> api_keys.Caller:
    """A caller with every scope."""
    with database.transaction() as session:
        row, _ = api_keys.create(session, "test", name, ["admin"])
        return api_keys.Caller(row.id, row.name, frozenset(row.scopes))


def new_model(policy: Mapping[str, Any], name: str = "net", count: int = SAMPLES) -> str:
    """A model with a head version over training samples of two classes."""
    with database.transaction() as session:
        dataset = tables.Dataset(
            name=f"data-of-{name}",
            files=[],
            status="ready",
            rows=count,
            splits={"train": count},
            label_names=list(LABELS),
        )
        session.add(dataset)
        session.flush()
        session.add_all(
            tables.Sample(
                dataset_id=dataset.id,
                sample_id=f"s{index}",
                split="train",
                label=index % len(LABELS),
                subject_id=f"person-{index}" if index % 10 == 0 else None,
                content_hash=index.to_bytes(32, "big"),
                file_index=0,
                row_group=0,
                row_index=index,
            )
            for index in range(count)
        )
        row = tables.Model(
            name=name, family="classifier", dataset_id=dataset.id, policy=dict(policy), head=1
        )
        session.add(row)
        session.flush()
        session.add(
            tables.Version(
                model_id=row.id,
                number=1,
                state="published",
                manifest=b"{}",
                manifest_digest="0" * 64,
                lineage={"anchor": 1, "chain": [], "chain_length": 0, "forgotten_digest": None},
            )
        )
    return name


def samples(*ids: str) -> specs.SampleTarget:
    """A target that names samples."""
    return specs.SampleTarget(kind="sample", ids=ids)


def demand(model: str, *targets: specs.Target, **more: Any) -> demands.Demand:
    """A demand as the API makes it of a body."""
    body = {"targets": [target.model_dump(mode="json") for target in targets], **more}
    return demands.Demand(
        model=model,
        targets=targets,
        method=body.get("method") or {},
        subject_request_id=None,
        priority=body.get("priority", "standard"),
        body=body,
        digest="",
    )


def submit(caller: api_keys.Caller, model: str, *targets: specs.Target, **more: Any) -> uuid.UUID:
    """Submit a demand; the request's id."""
    with database.transaction() as session:
        return forget_requests.submit(session, caller, demand(model, *targets, **more)).id


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
