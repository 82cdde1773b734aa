"""Requests that are sent while faults strike, and the account of what became of them."""

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import psycopg

from client import errors, http
from client.local import stack

_CLIENTS = 4
_POST_PATIENCE_SECONDS = 300.0
_TICK_SECONDS = 0.5
_ACCOUNT = """
WITH sent AS (SELECT unnest(%(ids)s::uuid[]) AS id),
made AS (SELECT v.*, row_number() OVER (PARTITION BY v.model_id ORDER BY v.number) AS position
         FROM version v JOIN model m ON m.id = v.model_id WHERE m.name = ANY(%(models)s)),
job_of AS (SELECT j.* FROM job j JOIN batch b ON b.id = j.subject_id
           JOIN model m ON m.id = b.model_id WHERE m.name = ANY(%(models)s))
SELECT
 (SELECT count(*) FROM sent LEFT JOIN forget_request r USING (id)
  WHERE r.status IS DISTINCT FROM 'completed') AS lost_requests,
 (SELECT count(*) FROM sent JOIN request_sample s ON s.request_id = sent.id
  JOIN forget_request r ON r.id = sent.id
  LEFT JOIN erasure e ON e.model_id = r.model_id AND e.sample_id = s.sample_id
  WHERE e.version IS DISTINCT FROM r.result_version) AS lost_samples,
 (SELECT count(*) FROM forget_request r JOIN model m ON m.id = r.model_id
  WHERE m.name = ANY(%(models)s)) - (SELECT count(*) FROM sent) AS doubled_requests,
 (SELECT count(*) FROM made WHERE number <> position) AS gaps,
 (SELECT count(*) FROM made WHERE job_id IS NOT NULL)
  - (SELECT count(DISTINCT job_id) FROM made) AS doubled_versions,
 (SELECT count(*) FROM job_of WHERE status = 'succeeded')
  - (SELECT count(*) FROM made WHERE job_id IS NOT NULL) AS jobs_without_version,
 (SELECT count(*) FROM (SELECT e.subject_id FROM event e JOIN sent ON sent.id = e.subject_id
  WHERE e.type = 'completed' GROUP BY 1 HAVING count(*) > 1) twice) AS completed_twice,
 (SELECT count(*) FROM job_of WHERE status IN ('queued', 'running')) AS open_jobs,
 (SELECT count(*) FROM job_of WHERE status = 'succeeded') AS succeeded,
 (SELECT count(*) FROM job_of WHERE status = 'failed') AS failed,
 (SELECT count(*) FROM event e JOIN job_of j ON j.id = e.subject_id WHERE e.type = 'claimed')
  AS claims
"""


@dataclasses.dataclass(frozen=True)
class Account:
    """What became of the requests.

    Attributes:
        lost: requests that are not completed, and samples that the version which their request
            names does not lack.
        doubled: requests, versions or completions that are there twice, and versions missing
            in a line or beside a succeeded job.
        found: every count by name.
        approved: how often a person had to decide, after three attempts were killed.
    """

    lost: int
    doubled: int
    found: Mapping[str, int]
    approved: int


class Load:
    """Requests on their way, from several clients that repeat what got no answer."""

    def __init__(
        self,
        running: stack.Running,
        models: Sequence[str],
        sample_ids: Sequence[str],
        method: Mapping[str, Any],
    ) -> None:
        """``sample_ids`` are training samples of every model; two of them go into a request."""
        self._running, self._models, self._method = running, models, method
        self._ids = sample_ids
        self._pool = futures.ThreadPoolExecutor(_CLIENTS)
        self._sent: list[futures.Future[str]] = []
        self.approved = 0

    def send(self) -> None:
        """Begin to send one request."""
        turn = len(self._sent)
        model = self._models[turn % len(self._models)]
        start = 2 * (turn // len(self._models))
        ids = list(self._ids[start : start + 2])
        if len(ids) < 2:
            raise RuntimeError(f"got {len(self._ids)} samples, too few for {turn} requests")
        body = {
            "model": model,
            "targets": [{"kind": "sample", "ids": ids}],
            "method": dict(self._method),
        }
        self._sent.append(self._pool.submit(self._post, body))

    def answered(self) -> list[str]:
        """The ids of all requests, once every one was accepted."""
        return [one.result() for one in self._sent]

    def settle(self, seconds: float, told: Callable[[int], None] = lambda _: None) -> None:
        """Wait until no request is open, and approve what asks for a person.

        ``told`` hears how many are open. Raises TimeoutError.
        """
        ids = self.answered()
        end = time.monotonic() + seconds
        while True:
            # A server may just be starting again after the last fault.
            with contextlib.suppress(psycopg.OperationalError, errors.ClientError):
                open_now = self._open(ids)
                told(len(open_now))
                if not open_now:
                    return
                for request_id, status in open_now.items():
                    if status == "action_required":
                        self._approve(request_id)
            if time.monotonic() > end:
                raise TimeoutError(f"requests are open after {seconds} s")
            time.sleep(_TICK_SECONDS)

    def account(self) -> Account:
        """Count what is lost and what is there twice; nothing is assumed of any request."""
        ids = [uuid.UUID(one) for one in self.answered()]
        with psycopg.connect(self._running.database_url, autocommit=True) as connection:
            cursor = connection.execute(_ACCOUNT, {"ids": ids, "models": list(self._models)})
            names = [column.name for column in cursor.description or ()]
            found = dict(zip(names, map(int, cursor.fetchone() or ()), strict=True))
        lost = found["lost_requests"] + found["lost_samples"] + found["open_jobs"]
        doubled = sum(
            abs(found[name])
            for name in (
                "doubled_requests",
                "gaps",
                "doubled_versions",
                "jobs_without_version",
                "completed_twice",
            )
        )
        doubled += len(ids) - len(set(ids))
        return Account(lost, doubled, found, self.approved)

    def _post(self, body: dict[str, Any]) -> str:
        """With one key until it is answered: a repeated call must not become a second request."""
        key = uuid.uuid4().hex
        end = time.monotonic() + _POST_PATIENCE_SECONDS
        with http.Api(self._running.base_url, self._running.admin_key) as api:
            while True:
                try:
                    return str(api.post("/v1/forget-requests", body, idempotency_key=key)["id"])
                except errors.ClientError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.2)

    def _approve(self, request_id: str) -> None:
        with http.Api(self._running.base_url, self._running.admin_key) as api:
            path = f"/v1/forget-requests/{request_id}/approve"
            match = {"If-Match": api.call("GET", path.removesuffix("/approve")).headers["ETag"]}
            api.post(path, {"reason": "the fault is over"}, headers=match)
            self.approved += 1

    def _open(self, ids: Sequence[str]) -> dict[str, str]:
        """The status of every request that is not completed; one that is not there is ``lost``."""
        query = (
            "SELECT sent.id::text, coalesce(r.status, 'lost') FROM unnest(%s::uuid[]) sent(id) "
            "LEFT JOIN forget_request r USING (id) WHERE r.status IS DISTINCT FROM 'completed'"
        )
        with psycopg.connect(self._running.database_url, autocommit=True) as connection:
            return dict(connection.execute(query, [list(map(uuid.UUID, ids))]).fetchall())
