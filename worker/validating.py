"""The validation job: do the files of an uploaded version fit each other and the data?"""

from service import artifacts, database, errors, jobs, models, tables, validation, versions
from worker import leases
from worker.families import contract, registered


def run(lease: leases.Lease) -> None:
    """Accept the version, or say what was got and expected."""
    claimed = lease.claimed
    family, upload = _uploaded(lease)
    problem = _problem(registered.FAMILIES[family], upload)
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        version = session.get_one(tables.Version, claimed.subject_id)
        refused = validation.conclude(session, version, problem)
        if refused is None:
            jobs.finish(session, job, "succeeded", None)
        else:
            jobs.finish(session, job, "failed", {"code": refused.code, "detail": refused.detail})


def _uploaded(lease: leases.Lease) -> tuple[str, contract.Upload]:
    with database.transaction() as session:
        version = session.get_one(tables.Version, lease.claimed.subject_id)
        model = session.get_one(tables.Model, version.model_id)
        files: dict[str, artifacts.FileRef] = {
            file.path: file for file in versions.files_of(session, version)
        }
        sampling = models.policy_of(model).sampling
        return model.family, contract.Upload(files, model.dataset.name, sampling, lease.enter)


def _problem(family: contract.AnyFamily, upload: contract.Upload) -> errors.Problem | None:
    try:
        family.validate(upload)
    except errors.Invalid as invalid:
        return invalid.problems[0]
    return None
