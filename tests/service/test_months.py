"""Ninety days of demands, with outages, deaths and a flood, in simulated time: nothing is late."""

import collections
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from client.local import stack
from service import database, tables
from tests.service import conftest, duties, months


@pytest.fixture
def simulated(running: stack.Running) -> Iterator[None]:
    """The service layer on a database whose clock is ours."""
    ahead = f"ALTER DATABASE months SET search_path TO {months.SEARCH_PATH}"
    lease = {"SALUN_LEASE_SECONDS": str(months.LEASE_SECONDS)}
    with conftest.on_database(running, "months", [*months.CLOCK, ahead], **lease):
        yield


@pytest.mark.usefixtures("simulated")
def test_in_ninety_days_nothing_is_late_and_few_jobs_serve_many_requests() -> None:
    names = [
        duties.new_model(policy, f"net-{index}", months.SAMPLES)
        for index, policy in enumerate(months.policies())
    ]
    world = months.World(months.Story(), names, seed=0)
    world.run()
    with database.transaction() as session:
        requests = session.scalars(sa.select(tables.ForgetRequest)).all()
        ran = session.scalars(sa.select(tables.Job)).all()
        erasures = session.scalars(sa.select(tables.Erasure)).all()
        numbers = collections.Counter(session.scalars(sa.select(tables.Version.model_id)))
    assert len(requests) == len(world.submitted) > 1500
    ended = collections.Counter(request.status for request in requests)
    assert set(ended) == {"completed", "cancelled"}
    late = [
        request
        for request in requests
        if request.completed_at is None
        or (request.status == "completed" and request.completed_at > request.due_at)
    ]
    assert late == []
    assert {job.status for job in ran} == {"succeeded"}
    assert len(ran) < len(requests) / 8
    assert world.died > 0
    assert all(erasure.version is not None for erasure in erasures)
    assert sum(numbers.values()) <= len(ran) + len(names)
