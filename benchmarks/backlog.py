"""What waits costs: claims in front of a long queue, many pending requests that become one job.

Like ``benchmarks.racing`` it works on the migrated database at ``DATABASE_URL``.
"""

import time
from dataclasses import dataclass

import sqlalchemy as sa

from benchmarks import bare_models
from service import api_keys, database, jobs, queue

_REQUESTS = sa.text(
    "SELECT count(*) FROM forget_request r JOIN model m ON m.id = r.model_id "
    "WHERE m.name = 'waits' AND r.status = :status"
)
_JOBS = sa.text(
    "SELECT count(*) FROM job j JOIN batch b ON b.id = j.subject_id "
    "JOIN model m ON m.id = b.model_id WHERE m.name = 'waits'"
)


@dataclass(frozen=True)
class OneJob:
    """What became of many pending requests on one model; times in seconds."""

    pending: int
    jobs: int
    completed: int
    sealing: float
    publishing: float


def one_job(who: api_keys.Caller, requests: int) -> OneJob:
    """Submit so many requests for a sample each, seal them and publish what served them."""
    bare_models.dataset("many", 2 * requests)
    bare_models.model("waits", "many", bare_models.generous(3600.0))
    for index in range(requests):
        bare_models.submit(who, "waits", bare_models.samples(f"s{index}"))
    pending = _count(_REQUESTS, status="pending")
    began = time.perf_counter()
    bare_models.flush("waits")
    sealed = time.perf_counter()
    claimed = jobs.claim(queue.UNLEARNING, "worker")
    if claimed is None:
        raise RuntimeError("nothing to claim")
    publishing = time.perf_counter()
    bare_models.publish(claimed)
    return OneJob(
        pending=pending,
        jobs=_count(_JOBS),
        completed=_count(_REQUESTS, status="completed"),
        sealing=sealed - began,
        publishing=time.perf_counter() - publishing,
    )


def claim_milliseconds(queued: int, claims: int, *, busy: bool) -> list[float]:
    """How long claims take with so many queued jobs, each of a line of its own.

    With ``busy`` all but the least urgent that are claimed belong to one line that runs already.
    """
    with database.transaction() as session:
        session.execute(sa.text("TRUNCATE job CASCADE"))
        session.execute(
            sa.text(
                "INSERT INTO job (kind, queue, line, subject_id, due_at, max_attempts, status) "
                "SELECT 'unlearning', 'unlearning', CASE WHEN :busy AND n <= :queued - :claims "
                "THEN 'model:busy' ELSE 'model:' || n END, gen_random_uuid(), "
                "now() + n * interval '1 second', 3, 'queued' FROM generate_series(1, :queued) n"
            ),
            {"queued": queued, "busy": busy, "claims": claims},
        )
        if busy:
            session.execute(
                sa.text(
                    "INSERT INTO job (kind, queue, line, subject_id, due_at, max_attempts, status,"
                    " lease_expires_at) VALUES ('unlearning', 'unlearning', 'model:busy',"
                    " gen_random_uuid(), now(), 3, 'running', now() + interval '1 day')"
                )
            )
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE job"))
    times = []
    for _ in range(claims):
        began = time.perf_counter()
        claimed = jobs.claim(queue.UNLEARNING, "claimer")
        times.append(1000 * (time.perf_counter() - began))
        if claimed is None:
            raise RuntimeError("nothing to claim")
    return times


def _count(what: sa.TextClause, **named: str) -> int:
    with database.transaction() as session:
        return int(session.execute(what, named).scalar_one())
