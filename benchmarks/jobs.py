"""Small jobs one after another: how soon they start, what they cost beside their work."""

import uuid

import psycopg
import rich.console
import rich.progress

from benchmarks import figures, served
from client import http

FORGET = 9  # samples a job forgets
_TIMES = """
SELECT extract(epoch FROM first.at - r.received_at)::float8,
       extract(epoch FROM j.finished_at - j.started_at)::float8 - work.seconds,
       work.seconds
FROM forget_request r
JOIN batch_member m ON m.request_id = r.id
JOIN job j ON j.subject_id = m.batch_id
CROSS JOIN LATERAL (SELECT min(created_at) AS at FROM event
                    WHERE subject_id = r.id AND type = 'stage') first
CROSS JOIN LATERAL (SELECT sum(run_seconds)::float8 AS seconds FROM job_step
                    WHERE job_id = j.id
                    AND name IN ('computing_saliency', 'unlearning', 'verifying')) work
WHERE r.id = %s
"""


def measure(
    api: http.Api, model: str, database_url: str, count: int, console: rich.console.Console
) -> list[figures.Figure]:
    """Have ``count`` requests served by ``model``, each in a job of its own.

    The rows that the jobs leave tell the times.
    """
    rows = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        for turn in rich.progress.track(range(count), "small jobs", console=console):
            request_id = _forget(api, model, turn * FORGET)
            row = connection.execute(_TIMES, [request_id]).fetchone()
            if row is None:
                raise RuntimeError(f"request {request_id} left no job")
            rows.append(row)
    first, overhead, work = zip(*rows, strict=True)
    return [
        figures.summarise("request received → first stage of its job", "s", first, at_most=1.0),
        figures.summarise("job: everything but mask, unlearn, verify", "s", overhead, at_most=5.0),
        figures.summarise("job: mask, unlearn, verify", "s", work),
    ]


def _forget(api: http.Api, model: str, start: int) -> str:
    """Have the samples from ``start`` on forgotten; return the id of the completed request."""
    ids = [served.sample_id(index) for index in range(start, start + FORGET)]
    body = {"model": model, "targets": [{"kind": "sample", "ids": ids}]}
    state = api.post("/v1/forget-requests", body, idempotency_key=uuid.uuid4().hex)
    while state["status"] in {"pending", "in_progress"}:
        path = f"/v1/forget-requests/{state['id']}"
        state = api.get(path, headers={"Prefer": "wait=10"}, timeout=60.0)
    if state["status"] != "completed":
        raise RuntimeError(f"a job ended as {state['status']}: {state['reason']}")
    return str(state["id"])
