"""Models that are rows alone: what happens to their requests and jobs is the real thing.

For what is about transactions and not about training: the service layer in this process, on the
database of ``DATABASE_URL``; a run's outcome is made up, so that a job costs milliseconds.
"""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from salun_core import specs
from service import (
    acceptance,
    aliases,
    api_keys,
    artifacts,
    database,
    demands,
    forget_requests,
    jobs,
    models,
    publication,
    sealing,
    tables,
    versions,
)

_PASSED = acceptance.Verdict(passed=True, metrics={}, failures=())
_BASE: dict[str, Any] = {"anchor": None, "chain": [], "chain_length": 0, "forgotten_digest": None}


def caller() -> api_keys.Caller:
    """Somebody who may do everything."""
    with database.transaction() as session:
        row, _ = api_keys.create(session, "benchmark", "caller", ["admin"])
        return api_keys.Caller(row.id, row.name, frozenset(row.scopes))


def dataset(name: str, samples: int) -> None:
    """A training set of so many rows in two classes, ``s0``, ``s1`` …, with no pictures."""
    with database.transaction() as session:
        row = tables.Dataset(
            name=name,
            files=[],
            status="ready",
            rows=samples,
            splits={"train": samples},
            label_names=["a", "b"],
        )
        session.add(row)
        session.flush()
        session.execute(
            sa.insert(tables.Sample),
            [
                {
                    "dataset_id": row.id,
                    "sample_id": f"s{index}",
                    "split": "train",
                    "label": index % 2,
                    "content_hash": b"",
                    "file_index": 0,
                    "row_group": 0,
                    "row_index": index,
                }
                for index in range(samples)
            ],
        )


def model(name: str, of: str, *, window_seconds: float) -> None:
    """A model over that dataset with a published first version."""
    policy = {
        "batch_window_seconds": window_seconds,
        "max_forget_share": 0.99,
        "budget": {"daily_share": None},
    }
    with database.transaction() as session:
        dataset_id = session.scalars(
            sa.select(tables.Dataset.id).where(tables.Dataset.name == of)
        ).one()
        row = tables.Model(
            name=name, family="classifier", dataset_id=dataset_id, policy=policy, head=1
        )
        session.add(row)
        session.flush()
        files = _files(f"{name} as it was")
        session.add_all(tables.Blob(digest=file.digest, size=file.size) for file in files)
        session.flush()
        version = versions.add(session, row, files, lineage=_BASE)
        version.state = "verified"
        aliases.move(session, "benchmark", row, models.PRODUCTION, version)


def submit(
    who: api_keys.Caller, model_name: str, ids: Sequence[str], method: dict[str, Any] | None = None
) -> uuid.UUID:
    """A request to forget these samples; its id."""
    demand = demands.Demand(
        model=model_name,
        targets=(specs.SampleTarget(kind="sample", ids=tuple(ids)),),
        method=method or {},
        subject_request_id=None,
        priority="standard",
        body={},
        digest="",
    )
    with database.transaction() as session:
        return forget_requests.submit(session, who, demand).id


def flush(model_name: str) -> int:
    """Seal what is open of a model; how many batches."""
    with database.transaction() as session:
        row = models.by_name(session, model_name)
        return len(sealing.flush(session, "benchmark", row))


def publish(claimed: jobs.Claim) -> int:
    """Publish a claimed job as if it had run; the version's number."""
    return publication.publish(claimed, outcome(claimed)).number


def outcome(claimed: jobs.Claim) -> publication.Outcome:
    """What a run of the job would have made."""
    with database.transaction() as session:
        batch = session.get_one(tables.Batch, claimed.subject_id)
        head = session.get_one(tables.Model, batch.model_id).head or 0
    return publication.Outcome(
        head_version=head,
        base_version=head,
        composition="chain",
        files=_files(f"{claimed.job_id} by {claimed.fence}"),
        pictures=(),
        report={},
        verdict=_PASSED,
    )


def _files(content: str) -> list[artifacts.FileRef]:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return [artifacts.FileRef("model.safetensors", digest, len(content))]
