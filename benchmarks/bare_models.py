"""Models that are rows alone: what happens to their requests and jobs is the real thing.

For what is about transactions and not about training: the service layer in this process, on the
database of ``DATABASE_URL``; a run's outcome is made up, so that a job costs milliseconds.
"""

import uuid
from collections.abc import Mapping
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
    destruction,
    forget_requests,
    jobs,
    models,
    publication,
    sealing,
    storage,
    tables,
    versions,
)

_PASSED = acceptance.Verdict(passed=True, metrics={}, failures=())
_BASE: dict[str, Any] = {"anchor": None, "chain": [], "chain_length": 0, "forgotten_digest": None}


def caller(name: str = "caller") -> api_keys.Caller:
    """Somebody who may do everything."""
    with database.transaction() as session:
        row, _ = api_keys.create(session, "benchmark", name, ["admin"])
        return api_keys.Caller(row.id, row.name, frozenset(row.scopes))


def dataset(name: str, samples: int) -> None:
    """A training set of so many rows in two classes, ``s0``, ``s1`` …, with no pictures.

    Every tenth is of a person: ``s20`` of ``person-20``.
    """
    with database.transaction() as session:
        row = tables.Dataset(
            name=name,
            files=[],
            status="ready",
            rows=samples,
            splits={"train": samples},
            label_names=["a", "b"],
            class_sizes={"0": (samples + 1) // 2, "1": samples // 2},
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
                    "subject_id": f"person-{index}" if index % 10 == 0 else None,
                    "content_hash": index.to_bytes(32, "big"),
                    "file_index": 0,
                    "row_group": 0,
                    "row_index": index,
                }
                for index in range(samples)
            ],
        )


def generous(window_seconds: float) -> dict[str, Any]:
    """A policy under which nearly every sample may be demanded."""
    return {
        "batch_window_seconds": window_seconds,
        "max_forget_share": 0.99,
        "budget": {"daily_share": None},
    }


def model(name: str, of: str, policy: Mapping[str, Any]) -> None:
    """A model over that dataset with a published first version."""
    with database.transaction() as session:
        over = session.scalars(sa.select(tables.Dataset).where(tables.Dataset.name == of)).one()
        row = tables.Model(
            name=name,
            family="classifier",
            dataset_id=over.id,
            training_size=over.splits[tables.TRAIN],
            policy=dict(policy),
            head=1,
        )
        session.add(row)
        session.flush()
        files = _files(f"{name} as it was")
        session.add_all(tables.Blob(digest=file.digest, size=file.size) for file in files)
        session.flush()
        version = versions.add(session, row, files, lineage=_BASE)
        version.state = "verified"
        aliases.move(session, "benchmark", row, models.PRODUCTION, version)


def samples(*ids: str) -> specs.SampleTarget:
    """A target that names samples."""
    return specs.SampleTarget(kind="sample", ids=ids)


def demand(model_name: str, *targets: specs.Target, **more: Any) -> demands.Demand:  # noqa: ANN401
    """A demand as the API makes it of a body."""
    body = {"targets": [target.model_dump(mode="json") for target in targets], **more}
    return demands.Demand(
        model=model_name,
        targets=targets,
        method=body.get("method") or {},
        subject_request_id=None,
        priority=body.get("priority", "standard"),
        body=body,
        digest="",
    )


def submit(
    who: api_keys.Caller,
    model_name: str,
    *targets: specs.Target,
    **more: Any,  # noqa: ANN401
) -> uuid.UUID:
    """Submit a demand; the request's id."""
    with database.transaction() as session:
        return forget_requests.submit(session, who, demand(model_name, *targets, **more)).id


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
    stored = storage.put([content.encode()], destruction.arriving)
    return [artifacts.FileRef("model.safetensors", stored.digest, stored.size)]
