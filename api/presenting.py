"""Rows of ``service`` as the bodies of the contract."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from api.schemas import audits as audit_schemas
from api.schemas import base, registry
from api.schemas import forget_requests as schemas
from service import (
    aliases,
    audits,
    batches,
    demands,
    deployments,
    errors,
    jobs,
    members,
    models,
    request_views,
    tables,
    versions,
)


def forget_request(view: request_views.View) -> schemas.ForgetRequestOut:
    """A forget request."""
    request, job = view.request, view.job
    base_url = f"/v1/forget-requests/{request.id}"
    links = {"self": base_url, "events": f"{base_url}/events", "report": f"{base_url}/report"}
    if view.batch_id is not None:
        links["batch"] = f"/v1/batches/{view.batch_id}"
    if job is not None:
        links["job"] = f"/v1/jobs/{job.id}"
    if request.result_version is not None:
        links["version"] = f"/v1/models/{view.model}/versions/{request.result_version}"
    is_at_work_no_more = request.status == "completed" or request.stage == deployments.PROPAGATING
    return schemas.ForgetRequestOut.model_validate(
        {
            "id": request.id,
            "status": request.status,
            "stage": request.stage,
            "reason": request.reason,
            "model": view.model,
            "received_at": request.received_at,
            "due_at": request.due_at,
            "extended_months": request.extended_months,
            "paused_at": request.paused_at,
            "completed_at": request.completed_at,
            "expected_completion_at": view.expected_completion_at,
            "targets_summary": {
                "matched": request.matched if view.named is None else view.named,
                "already_erased": request.already_erased,
                "pending": request.pending,
                "unknown": request.unknown,
            },
            "batch_id": view.batch_id,
            "job_id": None if job is None else job.id,
            "progress": None if job is None or is_at_work_no_more else _progress(job),
            "result_version": request.result_version,
            "waits_for_deployments": list(view.waits_for_deployments),
            "links": links,
        }
    )


def preview(found: demands.Preview) -> schemas.PreviewOut:
    """A dry run."""
    return schemas.PreviewOut(
        targets_summary=schemas.TargetsSummary(
            matched=found.matched,
            already_erased=found.already_erased,
            pending=found.pending,
            unknown=len(found.unknown),
        ),
        share=found.share,
        needs_approval=found.needs_approval,
        jobs=list(found.jobs),
        expected_completion_at=found.expected_completion_at,
        unknown_targets=[problem_item(item) for item in found.unknown[:100]],
    )


def job(session: orm.Session, row: tables.Job) -> schemas.JobOut:
    """A job with its finished stages."""
    steps = session.scalars(
        sa.select(tables.JobStep)
        .where(tables.JobStep.job_id == row.id)
        .order_by(tables.JobStep.created_at)
    )
    return schemas.JobOut.model_validate(
        {
            "id": row.id,
            "kind": row.kind,
            "status": row.status,
            "stage": row.stage,
            "step": row.step,
            "total_steps": row.total_steps,
            "fraction": _fraction(row),
            "eta_seconds": row.eta_seconds,
            "attempts": row.attempts,
            "max_attempts": row.max_attempts,
            "batch_id": row.subject_id if row.kind == jobs.UNLEARNING else None,
            "cancel_requested": row.cancel_requested,
            "error": row.error,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "steps": [
                {
                    "name": step.name,
                    "artifact_digest": step.artifact_digest,
                    "run_seconds": step.run_seconds,
                    "created_at": step.created_at,
                }
                for step in steps
            ],
        }
    )


def batch(session: orm.Session, row: tables.Batch) -> schemas.BatchOut:
    """A batch."""
    newest = batches.newest_job(session, row.id)
    samples = session.scalar(
        sa.select(sa.func.count())
        .select_from(tables.Erasure)
        .where(tables.Erasure.batch_id == row.id)
    )
    concepts = session.scalars(
        sa.select(tables.ConceptErasure.concept)
        .where(tables.ConceptErasure.batch_id == row.id)
        .order_by(tables.ConceptErasure.concept)
    ).all()
    return schemas.BatchOut.model_validate(
        {
            "id": row.id,
            "model": session.get_one(tables.Model, row.model_id).name,
            "kind": row.kind,
            "state": row.state,
            "opened_at": row.opened_at,
            "sealed_at": row.sealed_at,
            "requests": members.count(session, row.id),
            "samples": samples or 0,
            "concepts": concepts,
            "method": row.method,
            "parent_id": row.parent_id,
            "job_id": None if newest is None else newest.id,
            "result_version": row.result_version,
        }
    )


def dataset(row: tables.Dataset, ingestion: tables.Job | None) -> registry.DatasetOut:
    """A dataset and how far its ingestion is."""
    progress = None
    if ingestion is not None and row.status == "ingesting":
        progress = registry.IngestionProgress(
            rows=ingestion.step, total_rows=ingestion.total_steps, fraction=_fraction(ingestion)
        )
    return registry.DatasetOut.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "status": row.status,
            "rows": row.rows,
            "splits": row.splits,
            "label_names": row.label_names,
            "errors": row.errors,
            "job_id": None if ingestion is None else ingestion.id,
            "progress": progress,
            "created_at": row.created_at,
        }
    )


def model(session: orm.Session, row: tables.Model) -> registry.ModelOut:
    """A registered neural network."""
    return registry.ModelOut(
        id=row.id,
        name=row.name,
        family=row.family,
        dataset=session.get_one(tables.Dataset, row.dataset_id).name,
        policy=models.policy_of(row).model_dump(mode="json"),
        aliases=aliases.listing(session, row),
        head=row.head,
        versions=versions.next_number(session, row) - 1,
        created_at=row.created_at,
    )


def version(session: orm.Session, owner: tables.Model, row: tables.Version) -> registry.VersionOut:
    """A version with its files."""
    return registry.VersionOut.model_validate(
        {
            "id": row.id,
            "model": owner.name,
            "version": row.number,
            "state": row.state,
            "parent": row.parent,
            "lineage": row.lineage,
            "manifest_digest": row.manifest_digest,
            "files": [vars(file) for file in versions.files_of(session, row)],
            "errors": row.errors,
            "job_id": row.job_id,
            "created_at": row.created_at,
            "published_at": row.published_at,
            "superseded_at": row.superseded_at,
            "revoked_at": row.revoked_at,
            "revoke_reason": row.revoke_reason,
            "purged_at": row.purged_at,
        }
    )


def audit(
    owner: tables.Model, version: tables.Version, row: tables.Audit, job: tables.Job
) -> audit_schemas.AuditOut:
    """An audit, how far its job is, and what it found."""
    item = audit_item(owner, version, row, job)
    return audit_schemas.AuditOut(**dict(item), result=row.result)


def audit_item(
    owner: tables.Model, version: tables.Version, row: tables.Audit, job: tables.Job
) -> audit_schemas.AuditItem:
    """An audit and how far its job is."""
    version_url = f"/v1/models/{owner.name}/versions/{version.number}"
    status = audits.status_of(job)
    return audit_schemas.AuditItem.model_validate(
        {
            "id": row.id,
            "model": owner.name,
            "version": version.number,
            "status": status,
            "stage": job.stage,
            "job_id": job.id,
            "options": row.options,
            "progress": _progress(job) if status in jobs.UNFINISHED else None,
            "error": job.error,
            "created_at": row.created_at,
            "finished_at": job.finished_at,
            "links": {
                "self": f"{version_url}/audits/{row.id}",
                "version": version_url,
                "job": f"/v1/jobs/{job.id}",
            },
        }
    )


def problem_item(item: errors.Problem) -> base.ProblemItem:
    """One thing wrong with a body."""
    return base.ProblemItem(pointer=item.pointer, code=item.code, detail=item.detail)


def _progress(row: tables.Job) -> dict[str, Any]:
    return {
        "stage": row.stage,
        "step": row.step,
        "total_steps": row.total_steps,
        "fraction": _fraction(row),
        "eta_seconds": row.eta_seconds,
    }


def _fraction(row: tables.Job) -> float:
    if row.status == "succeeded":
        return 1.0
    return row.step / row.total_steps if row.total_steps else 0.0
