"""The validation job: do the tensors of an uploaded version fit its architecture?"""

import torch

from salun_core import architectures
from salun_core import errors as core_errors
from service import artifacts, database, errors, jobs, storage, tables, validation, versions
from worker import leases


def run(lease: leases.Lease) -> None:
    """Accept the version, or say what was got and expected."""
    claimed = lease.claimed
    lease.enter("validating")
    with database.transaction() as session:
        version = session.get_one(tables.Version, claimed.subject_id)
        files = {file.path: file.digest for file in versions.files_of(session, version)}
    problem = _problem(files)
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        version = session.get_one(tables.Version, claimed.subject_id)
        if problem is None:
            validation.accept(session, version)
            jobs.finish(session, job, "succeeded", None)
        else:
            validation.refuse(session, version, problem)
            jobs.finish(session, job, "failed", {"code": problem.code, "detail": problem.detail})


def _problem(files: dict[str, str]) -> errors.Problem | None:
    try:
        config = artifacts.read_config(files[artifacts.CONFIG])
        net = architectures.load(config, storage.path_of(files[artifacts.WEIGHTS]))
    except errors.Invalid as invalid:
        return invalid.problems[0]
    except core_errors.UnknownArchitectureError as error:
        return errors.Problem(f"/{artifacts.CONFIG}", "unknown-architecture", str(error))
    except core_errors.ArchitectureMismatchError as error:
        return errors.Problem(f"/{artifacts.WEIGHTS}", "architecture-mismatch", str(error))
    except core_errors.InvalidInputError as error:
        return errors.Problem(f"/{artifacts.WEIGHTS}", "invalid-artifact", str(error))
    return _not_finite(net)


def _not_finite(net: torch.nn.Module) -> errors.Problem | None:
    for name, tensor in net.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            detail = f"{name} holds NaN or infinity, expected finite weights"
            return errors.Problem(f"/{artifacts.WEIGHTS}", "not-finite", detail)
    return None
