"""Claim, heartbeat, step, publish, crash, expiry, cancel: any order that Hypothesis thinks of.

Time is moved by setting a lease's end back; nothing sleeps.
"""

import dataclasses
import uuid
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import stateful
from hypothesis import strategies as st

from benchmarks import bare_models
from salun_core import errors as core_errors
from service import api_keys, cancellation, database, errors, jobs, queue, settings, tables
from worker import endings

MODELS = ("left", "right")
SAMPLES = 400
OPEN = ("queued", "running")


@dataclasses.dataclass
class Known:
    """What must be true of a job."""

    model: str
    status: str = "queued"
    fence: int = 0
    attempts: int = 0
    expired: bool = False
    cancel_requested: bool = False
    pinned: dict[str, Any] | None = None
    steps: dict[str, str] = dataclasses.field(default_factory=dict)


class LeaseMachine(stateful.RuleBasedStateMachine):
    """Two models, their requests' jobs, and everybody who ever claimed one."""

    claims = stateful.Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        names = ", ".join(f'"{table.name}"' for table in tables.Base.metadata.sorted_tables)
        with database.transaction() as session:
            session.execute(sa.text(f"TRUNCATE {names} CASCADE"))
        self.who: api_keys.Caller = bare_models.caller()
        bare_models.dataset("rows", SAMPLES)
        for name in MODELS:
            bare_models.model(name, "rows", bare_models.generous(0.0))
        self.known: dict[uuid.UUID, Known] = {}
        self.requests: dict[uuid.UUID, uuid.UUID] = {}  # request → job
        self.newest_fence = 0
        self.published = dict.fromkeys(MODELS, 1)

    # --- what can happen --------------------------------------------------------------------

    @stateful.rule(model=st.sampled_from(MODELS))
    def submit(self, model: str) -> None:
        taken = len(self.requests)
        if taken >= SAMPLES // 2:
            return
        request_id = bare_models.submit(self.who, model, bare_models.samples(f"s{taken}"))
        with database.transaction() as session:
            job = session.scalars(
                sa.select(tables.Job)
                .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Job.subject_id)
                .where(tables.BatchMember.request_id == request_id)
            ).one()
        self.known[job.id] = Known(model)
        self.requests[request_id] = job.id

    @stateful.rule(target=claims)
    def claim(self) -> Any:
        claimable = {job_id for job_id, known in self.known.items() if self._is_claimable(known)}
        claimed = jobs.claim(queue.UNLEARNING, "somebody")
        if claimed is None:
            assert not claimable
            return stateful.multiple()
        assert claimed.job_id in claimable
        known = self.known[claimed.job_id]
        assert claimed.fence > self.newest_fence
        assert claimed.attempt == known.attempts + 1
        assert claimed.inputs == known.pinned
        self.newest_fence = claimed.fence
        known.status, known.fence, known.attempts = "running", claimed.fence, claimed.attempt
        known.expired = False
        if claimed.attempt > claimed.max_attempts:  # as every worker does first
            endings.fail(claimed, "worker_died", "too often")
            known.status = "failed"
        return claimed

    @stateful.rule(claimed=claims)
    def heartbeat(self, claimed: jobs.Claim) -> None:
        if not self._is_held(claimed):
            with pytest.raises(errors.LeaseLost):
                jobs.heartbeat(claimed, jobs.Progress("unlearning"))
            return
        known = self.known[claimed.job_id]
        stop = jobs.heartbeat(claimed, jobs.Progress("unlearning", 1, 2))
        assert stop == known.cancel_requested
        known.expired = False

    @stateful.rule(claimed=claims)
    def pin(self, claimed: jobs.Claim) -> None:
        wanted = {"plan": f"by {claimed.fence}"}
        if not self._is_held(claimed):
            with pytest.raises(errors.LeaseLost):
                jobs.pin_inputs(claimed, wanted)
            return
        known = self.known[claimed.job_id]
        known.pinned = known.pinned or wanted
        assert jobs.pin_inputs(claimed, wanted) == known.pinned

    @stateful.rule(claimed=claims, name=st.sampled_from(["mask", "weights", "report"]))
    def commit_step(self, claimed: jobs.Claim, name: str) -> None:
        digest = f"{name} by {claimed.fence}"
        if not self._is_held(claimed):
            with pytest.raises(errors.LeaseLost):
                jobs.commit_step(claimed, name, digest, 1.0)
            return
        jobs.commit_step(claimed, name, digest, 1.0)
        self.known[claimed.job_id].steps[name] = digest

    @stateful.rule(claimed=claims)
    def publish(self, claimed: jobs.Claim) -> None:
        known = self.known[claimed.job_id]
        if not self._is_held(claimed):
            with pytest.raises(errors.LeaseLost):
                bare_models.publish(claimed)
            return
        if known.cancel_requested:
            with pytest.raises(core_errors.CancelledError):
                bare_models.publish(claimed)
            endings.cancel(claimed)
            known.status = "cancelled"
            return
        self.published[known.model] += 1
        assert bare_models.publish(claimed) == self.published[known.model]
        known.status = "succeeded"

    @stateful.rule(claimed=claims, counts=st.booleans(), short=st.booleans())
    def stop_early(self, claimed: jobs.Claim, counts: bool, short: bool) -> None:
        """An attempt fails and is tried again, or is given back and does not count."""
        known = self.known[claimed.job_id]

        def stop() -> None:
            if counts:
                error = MemoryError() if short else RuntimeError("x")
                endings.retry_or_fail(claimed, error, 0.0)
            else:
                endings.give_back(claimed)

        if not self._is_held(claimed):
            with pytest.raises(errors.LeaseLost):
                stop()
            return
        stop()
        if counts and known.attempts >= claimed.max_attempts:
            known.status = "cancelled" if known.cancel_requested else "failed"
            return
        known.attempts -= not counts
        known.status = "cancelled" if known.cancel_requested else "queued"
        if counts and short and known.pinned is not None:
            halved = known.pinned.get(jobs.BATCH_HALVINGS, 0) + 1
            known.pinned = {**known.pinned, jobs.BATCH_HALVINGS: halved}

    @stateful.precondition(lambda self: any(k.status == "running" for k in self.known.values()))
    @stateful.rule(data=st.data())
    def let_a_lease_expire(self, data: st.DataObject) -> None:
        """Its holder crashed, froze, or lost the network: nobody can tell."""
        running = sorted(job_id for job_id, k in self.known.items() if k.status == "running")
        job_id = data.draw(st.sampled_from(running))
        with database.transaction() as session:
            session.execute(
                sa.update(tables.Job)
                .where(tables.Job.id == job_id)
                .values(lease_expires_at=sa.text("clock_timestamp() - interval '1 second'"))
            )
        self.known[job_id].expired = True

    @stateful.precondition(lambda self: bool(self.known))
    @stateful.rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[job_id]
        with database.transaction() as session:
            if known.status not in OPEN:
                with pytest.raises(errors.Conflict):
                    cancellation.cancel(session, "somebody", job_id)
                return
            cancellation.cancel(session, "somebody", job_id)
        known.cancel_requested = True
        if known.status == "queued":
            known.status = "cancelled"

    # --- what must hold ---------------------------------------------------------------------

    @stateful.invariant()
    def no_line_runs_two_jobs(self) -> None:
        with database.transaction() as session:
            lines = session.scalars(
                sa.select(tables.Job.line).where(tables.Job.status == "running")
            ).all()
        assert len(set(lines)) == len(lines)

    @stateful.invariant()
    def every_job_is_what_it_must_be(self) -> None:
        """None is lost, none that ended began again, and every attempt is counted."""
        with database.transaction() as session:
            rows = session.scalars(sa.select(tables.Job)).all()
            steps = session.execute(
                sa.select(
                    tables.JobStep.job_id, tables.JobStep.name, tables.JobStep.artifact_digest
                )
            ).all()
        assert {row.id for row in rows} == set(self.known)
        for row in rows:
            known = self.known[row.id]
            assert (row.status, row.fence or 0) == (known.status, known.fence)
            assert (row.attempts, row.inputs) == (known.attempts, known.pinned)
            done = {name: digest for job_id, name, digest in steps if job_id == row.id}
            assert done == known.steps

    @stateful.invariant()
    def what_is_published_is_published_once(self) -> None:
        """Versions without a gap, one for each job that succeeded; its requests are complete."""
        with database.transaction() as session:
            versions = session.execute(
                sa.select(tables.Model.name, tables.Version.number, tables.Version.job_id)
                .join(tables.Model, tables.Model.id == tables.Version.model_id)
                .order_by(tables.Version.number)
            ).all()
            status = dict(
                session.execute(
                    sa.select(tables.ForgetRequest.id, tables.ForgetRequest.status)
                ).all()
            )
        for name, newest in self.published.items():
            numbers = [number for model, number, _ in versions if model == name]
            assert numbers == list(range(1, newest + 1))
        made = [job_id for *_, job_id in versions if job_id is not None]
        succeeded = {job_id for job_id, k in self.known.items() if k.status == "succeeded"}
        assert len(made) == len(succeeded)
        assert set(made) == succeeded
        expected = {
            "succeeded": {"completed"},
            "failed": {"action_required"},
            "cancelled": {"action_required"},
        }
        for request_id, job_id in self.requests.items():
            open_statuses = {"pending", "in_progress"}
            assert status[request_id] in expected.get(self.known[job_id].status, open_statuses)

    # --- the model of it --------------------------------------------------------------------

    def _is_held(self, claimed: jobs.Claim) -> bool:
        """An expired lease that nobody took is still good."""
        known = self.known[claimed.job_id]
        return known.status == "running" and known.fence == claimed.fence

    def _is_claimable(self, known: Known) -> bool:
        if known.status == "running":
            return known.expired
        busy = any(k.status == "running" and k.model == known.model for k in self.known.values())
        return known.status == "queued" and not busy


@pytest.fixture
def long_lease(empty: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """No lease ends by itself while an example runs."""
    monkeypatch.setenv("SALUN_LEASE_SECONDS", "3600")
    settings.load.cache_clear()
    yield empty
    settings.load.cache_clear()


def run(examples: int, steps: int) -> None:
    stateful.run_state_machine_as_test(
        LeaseMachine,
        settings=hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


@pytest.mark.usefixtures("long_lease")
def test_leases_hold_whatever_happens() -> None:
    run(examples=15, steps=40)


@pytest.mark.faults_full
@pytest.mark.usefixtures("long_lease")
def test_leases_hold_whatever_happens_for_long() -> None:
    run(examples=60, steps=50)
