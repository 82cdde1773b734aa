"""Cancellations that race with sealing and with publishing.

``python -m benchmarks.racing`` works on the empty, migrated database at ``DATABASE_URL`` and prints
what it found as JSON, with the figures of ``benchmarks.backlog``.
"""

import argparse
import dataclasses
import functools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import TypeVar

import sqlalchemy as sa

from benchmarks import backlog, bare_models
from salun_core import errors as core_errors
from service import (
    api_keys,
    cancellation,
    database,
    errors,
    forget_requests,
    jobs,
    publication,
    queue,
)
from worker import endings

FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")
ValueT = TypeVar("ValueT")
_SEALING_LEFT = sa.text("""
SELECT r.status,
       (SELECT count(*) FROM request_sample s
        JOIN erasure e ON e.sample_id = s.sample_id AND e.model_id = r.model_id
        WHERE s.request_id = r.id),
       (SELECT count(*) FROM batch_member m
        JOIN job j ON j.subject_id = m.batch_id WHERE m.request_id = r.id)
FROM forget_request r WHERE r.id = :id
""")
_PUBLISHING_LEFT = sa.text("""
SELECT r.status, j.status,
       (SELECT count(*) FROM request_sample s
        JOIN erasure e ON e.sample_id = s.sample_id AND e.model_id = r.model_id
        WHERE s.request_id = r.id AND e.version = r.result_version),
       (SELECT count(*) FROM version v WHERE v.job_id = j.id)
FROM forget_request r, job j WHERE r.id = :id AND j.id = :job
""")
_STEP_SECONDS, _JITTER_SECONDS = 0.0005, 0.001


@dataclasses.dataclass
class Races:
    """How many races each side won, and how many had no winner or two."""

    name: str
    cancelled: int = 0
    carried_out: int = 0
    undecided: int = 0


def with_sealing(who: api_keys.Caller, model: str, tries: int, seed: int) -> Races:
    """Withdraw a request while its batch is sealed; the database tells who won.

    Withdrawn: no job, no erasure, no batch that waits. Sealed: the refusal was told, and one job
    waits for the sample.
    """
    found = Races("withdrawal against seal")
    with futures.ThreadPoolExecutor(2) as pool:
        start = _Start(pool, seed)
        for turn in range(tries):
            request_id = bare_models.submit(who, model, bare_models.samples(f"s{turn}"))
            withdrawn, sealed = start.both(
                functools.partial(_withdraw, request_id),
                functools.partial(bare_models.flush, model),
            )
            start.won(by_first=withdrawn)
            state = _sealing_left(request_id)
            if withdrawn and not sealed and state == ("cancelled", 0, 0):
                found.cancelled += 1
            elif not withdrawn and sealed == 1 and state == ("pending", 1, 1):
                found.carried_out += 1
            else:
                found.undecided += 1
    return found


def with_publishing(who: api_keys.Caller, model: str, tries: int, seed: int) -> Races:
    """Stop a job while it publishes; the database tells who won.

    Stopped: no version, nothing erased, the request waits for a person. Published: the refusal was
    told, and the sample is erased in one new version. The model must have a window of 0.
    """
    found = Races("cancellation against publication")
    with futures.ThreadPoolExecutor(2) as pool:
        start = _Start(pool, seed)
        for turn in range(tries):
            request_id = bare_models.submit(who, model, bare_models.samples(f"s{turn}"))
            claimed = jobs.claim(queue.UNLEARNING, "racer")
            if claimed is None:
                raise RuntimeError("nothing to claim")
            told, version = start.both(
                functools.partial(_stop, claimed.job_id),
                functools.partial(_publish, claimed, bare_models.outcome(claimed)),
            )
            start.won(by_first=told)
            state = _publishing_left(request_id, claimed.job_id)
            if told and version is None and state == ("action_required", "cancelled", 0, 0):
                found.cancelled += 1
            elif not told and version and state == ("completed", "succeeded", 1, 1):
                found.carried_out += 1
            else:
                found.undecided += 1
    return found


class _Start:
    """Begins two acts nearly together; who loses gets a longer start, so that races are close."""

    def __init__(self, pool: futures.Executor, seed: int) -> None:
        self._pool = pool
        self._chance = random.Random(seed)  # noqa: S311 - delays
        self._lead = 0.0  # seconds that the second act begins before the first

    def both(
        self, first: Callable[[], FirstT], second: Callable[[], SecondT]
    ) -> tuple[FirstT, SecondT]:
        lead = self._lead + self._chance.uniform(-_JITTER_SECONDS, _JITTER_SECONDS)
        barrier = threading.Barrier(2)

        def begin(delay: float, act: Callable[[], ValueT]) -> ValueT:
            barrier.wait()
            time.sleep(max(0.0, delay))
            return act()

        one = self._pool.submit(begin, lead, first)
        other = self._pool.submit(begin, -lead, second)
        return one.result(), other.result()

    def won(self, *, by_first: bool) -> None:
        self._lead += _STEP_SECONDS if by_first else -_STEP_SECONDS


def _withdraw(request_id: uuid.UUID) -> bool:
    try:
        with database.transaction() as session:
            forget_requests.withdraw(session, "racer", request_id)
    except errors.Conflict:
        return False
    return True


def _stop(job_id: uuid.UUID) -> bool:
    try:
        with database.transaction() as session:
            cancellation.cancel(session, "racer", job_id)
    except errors.Conflict:
        return False
    return True


def _publish(claimed: jobs.Claim, outcome: publication.Outcome) -> int | None:
    """As a worker does: publish, or end the job when it was stopped."""
    try:
        return publication.publish(claimed, outcome).number
    except core_errors.CancelledError:
        endings.cancel(claimed)
        return None


def _sealing_left(request_id: uuid.UUID) -> tuple[str, int, int]:
    """(status, erasures, jobs) of a request."""
    with database.transaction() as session:
        row = session.execute(_SEALING_LEFT, {"id": request_id}).one()
        return str(row[0]), int(row[1]), int(row[2])


def _publishing_left(request_id: uuid.UUID, job_id: uuid.UUID) -> tuple[str, str, int, int]:
    """(status of the request, of its job, erased samples, versions that the job made)."""
    with database.transaction() as session:
        row = session.execute(_PUBLISHING_LEFT, {"id": request_id, "job": job_id}).one()
        return str(row[0]), str(row[1]), int(row[2]), int(row[3])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all races and claims."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.racing", description=__doc__)
    parser.add_argument("--tries", type=int, default=1000, help="races of either kind")
    parser.add_argument("--queued", type=int, default=100_000, help="jobs in front of the claims")
    parser.add_argument("--claims", type=int, default=200)
    parser.add_argument("--pending", type=int, default=10_000, help="requests for one job")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    who = bare_models.caller()
    one_job = backlog.one_job(who, options.pending)  # first: it claims what there is to claim
    bare_models.dataset("races", 2 * options.tries)
    bare_models.model("seals", "races", bare_models.generous(3600.0))
    bare_models.model("publishes", "races", bare_models.generous(0.0))
    publishing = with_publishing(who, "publishes", options.tries, options.seed)
    sealing = with_sealing(who, "seals", options.tries, options.seed)
    found = {
        "races": [dataclasses.asdict(races) for races in (sealing, publishing)],
        "claims": {
            kind: backlog.claim_milliseconds(options.queued, options.claims, busy=busy)
            for kind, busy in (("lines of their own", False), ("a busy line in front", True))
        },
        "one_job": dataclasses.asdict(one_job),
    }
    print(json.dumps(found))  # noqa: T201 - for whoever started this
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
