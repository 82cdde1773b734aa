"""One claimed job from start to end, whatever its kind: run it, and account for how it ended."""

import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping

from salun_core import errors as core_errors
from service import database, errors, jobs, queue
from worker import auditing, disposing, endings, exhaustion, ingesting, leases, pipeline, validating

_log = logging.getLogger("salun.worker")
RETRY_SECONDS = 1.0

Work = Callable[[leases.Lease], None]
_WORK: Mapping[str, Work] = {
    jobs.UNLEARNING: pipeline.run,
    jobs.INGESTION: ingesting.run,
    jobs.VALIDATION: validating.run,
    jobs.AUDIT: auditing.run,
    jobs.DISPOSAL: disposing.run,
}


def run_one(job_id: str, owner: str) -> None:
    """Claim the most urgent job of the queue that the hinted job is in, and run it.

    Raises SystemExit where memory ran out: the process that takes this one's place has all of it.
    """
    with database.transaction() as session:
        queue_name = jobs.by_id(session, uuid.UUID(job_id)).queue
    claimed = jobs.claim(queue_name, owner)
    if claimed is not None:
        try:
            _run(claimed)
        finally:
            with contextlib.suppress(*queue.UNREACHABLE):
                queue.relay()


def _run(claimed: jobs.Claim) -> None:
    _log.info("job %s: attempt %d of kind %s", claimed.job_id, claimed.attempt, claimed.kind)
    try:
        _work(claimed)
    except errors.LeaseLost:
        _log.warning("job %s: lease lost, nothing written", claimed.job_id)


def _work(claimed: jobs.Claim) -> None:
    """Run the job and write how it ended; LeaseLost wherever somebody else has it now."""
    try:
        with leases.Lease(claimed) as lease:
            if claimed.attempt > claimed.max_attempts:
                detail = f"{claimed.attempt - 1} attempts ended in death"
                endings.fail(claimed, "worker_died", detail, divisible=True)
                return
            _WORK[claimed.kind](lease)
    except errors.LeaseLost:
        raise
    except (leases.Interrupted, errors.Outdated) as reason:
        _log.info("job %s: given back: %s", claimed.job_id, type(reason).__name__)
        endings.give_back(claimed)
    except core_errors.CancelledError:
        endings.cancel(claimed)
    except Exception as error:  # noqa: BLE001 - whatever it was, the duty stays and is accounted for
        _failed(claimed, error)


def _failed(claimed: jobs.Claim, error: Exception) -> None:
    """What would come to the same again fails at once; all else is tried again."""
    is_short = exhaustion.is_told_by(error)
    if isinstance(error, core_errors.SalunError) and not is_short:
        # What is wrong with the model itself is no request's fault.
        blames = not isinstance(error, core_errors.InvalidConfigError)
        endings.fail(claimed, type(error).__name__, str(error), divisible=blames)
        return
    if isinstance(error, errors.Refusal) and not is_short:
        code = error.code if isinstance(error, errors.Conflict) else type(error).__name__
        endings.fail(claimed, code, str(error))
        return
    _log.error("job %s: attempt %d failed", claimed.job_id, claimed.attempt, exc_info=error)
    endings.retry_or_fail(claimed, error, RETRY_SECONDS)
    if is_short:
        # Torch and oneDNN do not free all that a computation held that ran out of it.
        raise SystemExit(0)
