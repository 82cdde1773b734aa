"""The validation job: do the files of an uploaded version fit each other and the data?

Where its model has erased something before, the net is asked about that too, by the same gates as
an unlearned one: what it was trained on is its uploader's word.
"""

import math

from sqlalchemy import orm

from service import (
    acceptance,
    artifacts,
    database,
    errors,
    jobs,
    models,
    planning,
    tables,
    telling,
    validation,
    versions,
)
from worker import exhaustion, leases
from worker.families import contract, registered

_JUDGE = (artifacts.JUDGE_CONFIG, artifacts.JUDGE_WEIGHTS)


def run(lease: leases.Lease) -> None:
    """Accept the version, or say what was got and expected."""
    claimed = lease.claimed
    family, upload = _uploaded(lease)
    problem = _unfit(family, upload) or _known(lease, family, upload)
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        version = session.get_one(tables.Version, claimed.subject_id)
        refused = validation.conclude(session, version, problem)
        if refused is None:
            jobs.finish(session, job, "succeeded", None)
        else:
            jobs.finish(session, job, "failed", {"code": refused.code, "detail": refused.detail})


def _uploaded(lease: leases.Lease) -> tuple[contract.AnyFamily, contract.Upload]:
    with database.transaction() as session:
        version = session.get_one(tables.Version, lease.claimed.subject_id)
        model = session.get_one(tables.Model, version.model_id)
        files: dict[str, artifacts.FileRef] = {
            file.path: file for file in versions.files_of(session, version)
        }
        sampling = models.policy_of(model).sampling
        upload = contract.Upload(files, model.dataset.name, sampling, lease.enter)
        return registered.FAMILIES[model.family], upload


def _unfit(family: contract.AnyFamily, upload: contract.Upload) -> errors.Problem | None:
    try:
        family.validate(upload)
    except errors.Invalid as invalid:
        if exhaustion.is_told_by(invalid):  # then nothing was found out
            raise
        return invalid.problems[0]
    return None


def _known(
    lease: leases.Lease, family: contract.AnyFamily, upload: contract.Upload
) -> errors.Problem | None:
    """That the net knows what was erased before it came."""
    with database.transaction() as session:
        version = session.get_one(tables.Version, lease.claimed.subject_id)
        model = session.get_one(tables.Model, version.model_id)
        if not version.lineage["forgets"]:  # a first one, or one that will be refused for it
            return None
        plan = planning.of_upload(session, version)
        policy = models.policy_of(model).acceptance
        judge = _judge_of_head(session, model)
    if plan is None:
        return None
    others = {path: file for path, file in upload.files.items() if path not in _JUDGE}
    prepared = family.prepare(plan, {**others, **judge}, upload.enter("loading"))
    measured = prepared.measure_erased(upload.enter("verifying"))
    verdict = acceptance.judge_erased(measured, policy)
    with database.transaction() as session:
        jobs.hold(session, lease.claimed)
        values = {name: one.value for name, one in measured.metrics.items()}
        figures = {name: value for name, value in values.items() if math.isfinite(value)}
        told = {"passed": verdict.passed, **figures}
        telling.audit(session, "worker", "version.measure", version.id, **told)
    if verdict.passed:
        return None
    detail = (
        f"this net knows what model {plan.model!r} has forgotten ({'; '.join(verdict.failures)}); "
        "expected one that was trained without it"
    )
    return errors.Problem("/trained_without", "erasure-regression", detail)


def _judge_of_head(session: orm.Session, model: tables.Model) -> dict[str, artifacts.FileRef]:
    """The judge that came with what is served, if one did: an upload's own could see anything."""
    head = versions.by_number(session, model, model.head or 0)
    return {file.path: file for file in versions.files_of(session, head) if file.path in _JUDGE}
