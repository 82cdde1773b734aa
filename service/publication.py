"""How an unlearning job ends: one transaction that publishes, or says why not."""

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import errors as core_errors
from service import (
    acceptance,
    aliases,
    artifacts,
    batches,
    composing,
    database,
    deployments,
    destruction,
    erasures,
    errors,
    fulfilment,
    jobs,
    judges,
    models,
    splitting,
    storage,
    tables,
    telling,
    versions,
)


@dataclass(frozen=True)
class Outcome:
    """What a run made of ``base_version`` while ``head_version`` was served.

    The files of the new version, its rendered report, the verdict.

    ``pictures`` are those that the report names by digest. ``retrained``: nothing of the base's
    weights is left in it. ``lost_accuracy`` is what it lost on the test set against the base.
    """

    head_version: int
    base_version: int
    composition: composing.Name
    files: Sequence[artifacts.FileRef]
    pictures: Sequence[artifacts.FileRef]
    report: dict[str, Any]
    verdict: acceptance.Verdict
    retrained: bool = False
    lost_accuracy: float = 0.0


def publish(claimed: jobs.Claim, outcome: Outcome) -> tables.Version:
    """Write the version and move everything that depends on it, in one transaction.

    Raises :class:`errors.LeaseLost` when the claim is not good any more,
    :class:`core_errors.CancelledError` when somebody stopped the job before, and
    :class:`errors.Outdated` (``head-moved``) when the model got another head meanwhile.
    """
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        if job.cancel_requested:  # who asked was told that the job stops
            raise core_errors.CancelledError
        batch = session.get_one(tables.Batch, claimed.subject_id)
        model = hold_model(session, batch.model_id)
        if model.head != outcome.head_version:
            detail = f"job was planned on version {outcome.head_version}, the head is {model.head}"
            raise errors.Outdated("head-moved", detail)
        files = (*outcome.files, *outcome.pictures)
        for file in sorted(files, key=lambda file: file.digest):  # in one order: no deadlock
            destruction.want(session, storage.Stored(file.digest, file.size))
        number = versions.next_number(session, model)
        if outcome.verdict.passed:
            erasures.mark_erased(session, batch.id, number)
            judges.drop(session, model.dataset_id)
        version = versions.add(
            session,
            model,
            outcome.files,
            lineage=_lineage(session, model, outcome),
            parent=outcome.base_version,
            job_id=job.id,
            report=outcome.report,
        )
        if outcome.verdict.passed:
            _pass(session, model, batch, version)
        else:
            _split_or_block(session, batch, "verification_failed")
        telling.audit(
            session,
            "worker",
            "version.add",
            version.id,
            passed=outcome.verdict.passed,
            manifest=version.manifest_digest,
        )
        jobs.finish(session, job, "succeeded", None)
        return version


def nothing_left(claimed: jobs.Claim) -> None:
    """Everything in the batch was erased by an earlier job: finish without a new version."""
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        batch = session.get_one(tables.Batch, claimed.subject_id)
        model = hold_model(session, batch.model_id)
        if model.head is not None:
            # What is not known as erased yet was deleted because all models had erased it.
            erasures.mark_erased(session, batch.id, model.head)
            erasures.mark_served(session, batch.id)
        batch.state = "completed"
        fulfilment.complete_served(session, batch)
        destruction.condemn(session, jobs.artifacts(session, job))
        jobs.finish(session, job, "succeeded", None)


def close_job(
    session: orm.Session,
    job: tables.Job,
    status: str,
    reason: str,
    error: dict[str, Any],
    *,
    divisible: bool = False,
) -> None:
    """Close an unlearning job without a version and block its batch.

    Where the cause may lie in what one request names (``divisible``) the batch is split instead,
    as long as it can be. What the job made goes: whatever comes next is a job of its own.
    """
    batch = session.get_one(tables.Batch, job.subject_id)
    batches.hold(session, batch.model_id)  # nobody joins a batch in the moment that it ends
    if divisible:
        _split_or_block(session, batch, reason)
    else:
        _block(session, batch, reason)
    destruction.condemn(session, jobs.artifacts(session, job))
    jobs.finish(session, job, status, error)


def hold_model(session: orm.Session, model_id: uuid.UUID) -> tables.Model:
    """The model as it is now, locked before an alias moves: nobody joins a batch that it ends."""
    batches.hold(session, model_id)
    return session.get_one(tables.Model, model_id, with_for_update=True)


def move_alias(
    session: orm.Session,
    actor: str,
    model: tables.Model,
    name: str,
    number: int,
    if_serial: int | None,
) -> None:
    """Move an alias by hand; requests that waited for their version to be served are complete."""
    aliases.move_by_hand(session, actor, model, name, number, if_serial)
    if name == models.PRODUCTION:
        _complete_waiting(session, model, versions.by_number(session, model, number))


def note_deployment(
    session: orm.Session,
    deployment: str,
    model: tables.Model,
    version: tables.Version,
    manifest_digest: str,
    loaded_at: datetime.datetime,
) -> bool:
    """A deployment reports what it runs; requests that waited for it are complete.

    See :func:`service.deployments.record`.
    """
    hold_model(session, model.id)
    up_to_date = deployments.record(session, deployment, model, version, manifest_digest, loaded_at)
    fulfilment.complete_deployed(session, model.id)
    return up_to_date


def remove_deployment(
    session: orm.Session, actor: str, model: tables.Model, deployment: str
) -> None:
    """A deployment serves the model no more; requests that waited for it are complete."""
    hold_model(session, model.id)
    deployments.remove(session, actor, model, deployment)
    fulfilment.complete_deployed(session, model.id)


def serve(session: orm.Session, model: tables.Model, version: tables.Version) -> None:
    """Point the production alias at a version; whatever waited for one like it is complete."""
    aliases.move(session, "worker", model, models.PRODUCTION, version)
    _complete_waiting(session, model, version)


def _complete_waiting(session: orm.Session, model: tables.Model, served: tables.Version) -> None:
    """Requests whose erasures a version has, which is served now."""
    waiting = session.scalars(
        sa.select(tables.Batch).where(
            tables.Batch.model_id == model.id,
            tables.Batch.state == "verified",
            tables.Batch.result_version.in_(versions.forgets(served)),
        )
    ).all()
    for batch in waiting:
        _complete(session, batch)


def _pass(
    session: orm.Session, model: tables.Model, batch: tables.Batch, version: tables.Version
) -> None:
    version.state = "verified"
    model.head = version.number
    batch.result_version = version.number
    batch.state = "verified"
    if models.policy_of(model).auto_publish:
        serve(session, model, version)
    else:
        fulfilment.advance(session, batch.id, "publishing")


def _complete(session: orm.Session, batch: tables.Batch) -> None:
    """A version that lacks what the batch erased is served."""
    batch.state = "completed"
    erasures.mark_served(session, batch.id)
    fulfilment.complete_served(session, batch)


def _split_or_block(session: orm.Session, batch: tables.Batch, reason: str) -> None:
    """Those to blame are looked for; a batch that cannot be split needs a person."""
    if splitting.split(session, batch):
        fulfilment.wait_again(session, batch.id)
    else:
        _block(session, batch, reason)


def _block(session: orm.Session, batch: tables.Batch, reason: str) -> None:
    batch.state = "blocked"
    fulfilment.block(session, batch.id, reason)


def _lineage(session: orm.Session, model: tables.Model, outcome: Outcome) -> dict[str, Any]:
    lineage = composing.lineage(
        session,
        model,
        outcome.composition,
        outcome.base_version,
        retrained=outcome.retrained,
        lost_accuracy=outcome.lost_accuracy,
    )
    return {**lineage, "forgotten_digest": erasures.forgotten_digest(session, model)}
