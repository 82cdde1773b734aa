"""A fast clock for the real service, and the world around it: demands, outages, GPU workers.

PostgreSQL reads the time from ``clock_timestamp()``. A function of that name in a schema that comes
before ``pg_catalog`` in the search path is found first, and with it every statement, column default
and lease of the product lives in simulated time. Only the GPU step is made up: what a worker would
compute is a number of hours and a verdict.
"""

import contextlib
import dataclasses
import datetime
import heapq
import uuid
from collections.abc import Iterator

import numpy as np
import sqlalchemy as sa

from benchmarks import bare_models
from service import (
    acceptance,
    database,
    deadlines,
    errors,
    forget_requests,
    jobs,
    members,
    planning,
    publication,
    queue,
    sealing,
    tables,
)

HOUR = datetime.timedelta(hours=1)
DAY = 24 * HOUR
START = datetime.datetime(2099, 1, 20, tzinfo=datetime.UTC)
SAMPLES = 2000  # of each model
LEASE_SECONDS = 3 * 3600.0  # heartbeats come once in a simulated hour
CLOCK = (
    "CREATE SCHEMA months",
    "CREATE TABLE months.clock (now timestamptz NOT NULL)",
    "INSERT INTO months.clock VALUES ('2099-01-20T00:00:00Z')",
    "CREATE FUNCTION months.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE "
    "AS 'SELECT now FROM months.clock'",
)
SEARCH_PATH = "months,pg_catalog,public"
ADMIN = "operator"


@dataclasses.dataclass(frozen=True)
class Story:
    """What happens to the service.

    Attributes:
        days: of arrivals; afterwards everything is let run out.
        a_day: demands, on average, over all models.
        outages: first day and length of times without any worker.
        flood: day on which one model gets many demands, and how many.
        poison: every so many demands one makes its batch fail, alone or not.
    """

    days: int = 90
    a_day: float = 20.0
    outages: tuple[tuple[float, float], ...] = ((10.0, 6.0), (55.0, 9.0))
    flood: tuple[float, int] = (30.0, 300)
    poison: int = 150


@dataclasses.dataclass
class Running:
    """A job on a worker until ``ends_at``, or until its worker dies then."""

    claimed: jobs.Claim
    ends_at: datetime.datetime
    dies: bool


class World:
    """Hour by hour, with two workers over several models."""

    def __init__(self, story: Story, models: list[str], seed: int) -> None:
        self._story, self._models = story, models
        self._rng = np.random.default_rng(seed)
        self._caller = bare_models.caller("months")
        self._approver = bare_models.caller(ADMIN)
        self._running: list[Running] = []
        self._later: list[tuple[datetime.datetime, int, str, uuid.UUID]] = []
        self._names = {name: iter(self._rng.permutation(SAMPLES)) for name in models}
        self._poison: set[uuid.UUID] = set()
        self.now = START
        self.submitted: list[uuid.UUID] = []
        self.died = 0

    def run(self) -> None:
        """The days of arrivals, then until nothing is open."""
        end = START + self._story.days * DAY
        while self.now < end or self._open():
            assert self.now < end + 40 * DAY, "something stays open for ever"
            self.now += HOUR
            self._set_clock()
            if self.now < end:
                self._arrive()
            self._decide()
            self._sweep()
            self._work()

    def _set_clock(self) -> None:
        with database.transaction() as session:
            session.execute(sa.text("UPDATE months.clock SET now = :now"), {"now": self.now})

    def _arrive(self) -> None:
        count = int(self._rng.poisson(self._story.a_day / 24))
        day = (self.now - START) / DAY
        flood_day, many = self._story.flood
        names = [str(self._rng.choice(self._models)) for _ in range(count)]
        if day <= flood_day < day + 1 / 24:
            names += [self._models[0]] * many
        for name in names:
            self._submit(name)

    def _submit(self, name: str) -> None:
        fresh = next(self._names[name], None)
        index = int(self._rng.integers(SAMPLES)) if fresh is None else int(fresh)
        wanted = {f"s{index}"}
        if self._rng.random() < 0.2:  # somebody else may have named it
            wanted.add(f"s{self._rng.integers(SAMPLES)}")
        request_id = bare_models.submit(self._caller, name, bare_models.samples(*sorted(wanted)))
        self.submitted.append(request_id)
        if len(self.submitted) % self._story.poison == 0:
            self._poison.add(request_id)
        drawn = self._rng.random()
        if drawn < 0.03:
            self._plan(2 * HOUR, "pause", request_id)
        elif drawn < 0.06:
            self._plan(20 * HOUR, "extend", request_id)
        elif drawn < 0.09:
            self._plan(5 * HOUR, "withdraw", request_id)

    def _plan(self, wait: datetime.timedelta, what: str, request_id: uuid.UUID) -> None:
        heapq.heappush(self._later, (self.now + wait, len(self._later), what, request_id))

    def _decide(self) -> None:
        """People: they withdraw, extend, ask for a proof, and look at what needs them each day."""
        while self._later and self._later[0][0] <= self.now:
            _, _, what, request_id = heapq.heappop(self._later)
            # Too late, as it happens to people.
            with contextlib.suppress(errors.Conflict):
                self._change(what, request_id)
        if self.now.hour == 9:
            for request in self._open("action_required"):
                self._poison.discard(request.id)  # they mend it, then it is tried again
                # Of one batch the first approval is everybody's.
                with contextlib.suppress(errors.Conflict), database.transaction() as session:
                    held = forget_requests.by_id(session, request.id, lock=True)
                    forget_requests.approve(session, self._approver, held, "mended")

    def _change(self, what: str, request_id: uuid.UUID) -> None:
        with database.transaction() as session:
            held = forget_requests.by_id(session, request_id, lock=True)
            match what:
                case "pause":
                    deadlines.pause(session, ADMIN, held, "who is it?")
                    self._plan(8 * DAY, "resume", request_id)
                case "resume":
                    deadlines.resume(session, ADMIN, held, "proved")
                case "extend":
                    deadlines.extend(session, ADMIN, held, 1, "complex")
                case "withdraw":
                    forget_requests.withdraw(session, ADMIN, request_id)

    def _sweep(self) -> None:
        with database.transaction() as session:
            sealing.seal_due(session)
        with database.transaction() as session:
            deadlines.alarm(session)

    def _work(self) -> None:
        if any(
            first * DAY <= self.now - START < (first + length) * DAY
            for first, length in self._story.outages
        ):
            self._running.clear()  # all dead at once
            return
        for one in list(self._running):
            if one.ends_at > self.now:
                jobs.heartbeat(one.claimed, jobs.Progress("unlearning"))
                continue
            self._running.remove(one)
            if one.dies:
                self.died += 1
            else:
                self._finish(one.claimed)
        while len(self._running) < 2 and (claimed := self._claim()) is not None:
            hours = float(np.clip(self._rng.lognormal(np.log(3.0), 0.5), 1.0, 12.0))
            dies = bool(self._rng.random() < 0.04)
            self._running.append(Running(claimed, self.now + hours * HOUR, dies))

    def _claim(self) -> jobs.Claim | None:
        return jobs.claim(queue.UNLEARNING, "worker")

    def _finish(self, claimed: jobs.Claim) -> None:
        plan = planning.pinned(claimed)
        if plan.is_empty:
            publication.nothing_left(claimed)
            return
        with database.transaction() as session:
            served = {one.id for one in members.requests(session, claimed.subject_id)}
        made = dataclasses.replace(
            bare_models.outcome(claimed),
            head_version=plan.planned_on,
            base_version=plan.base_version,
            composition=plan.composition,
            verdict=acceptance.Verdict(passed=not served & self._poison, metrics={}, failures=()),
        )
        publication.publish(claimed, made)

    def _open(self, *status: str) -> list[tables.ForgetRequest]:
        wanted = status or ("pending", "in_progress", "action_required")
        with database.transaction() as session:
            found = sa.select(tables.ForgetRequest).where(tables.ForgetRequest.status.in_(wanted))
            return list(session.scalars(found))


def policies() -> Iterator[dict[str, object]]:
    """Models of several habits: batches of a day, of a fortnight, and as late as may be."""
    for days in (1, 14, 365):
        yield {
            "batch_window_seconds": days * 86_400.0,
            "max_forget_share": 0.99,
            "budget": {"daily_share": None},
        }
