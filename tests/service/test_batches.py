"""Joining, leaving and sealing a batch at once, on a real PostgreSQL."""

import collections
import concurrent.futures
import uuid

import numpy as np
import pytest
import sqlalchemy as sa

from benchmarks import bare_models
from service import api_keys, database, erasures, errors, forget_requests, sealing, tables
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty")


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


@pytest.fixture
def model() -> str:
    """A model that waits an hour for more requests."""
    policy = {**duties.HOUR, "max_forget_share": 0.99, "budget": {"daily_share": None}}
    return duties.new_model(policy)


def submit(caller: api_keys.Caller, model: str, *ids: str) -> uuid.UUID:
    return bare_models.submit(caller, model, bare_models.samples(*ids))


def withdraw(request_id: uuid.UUID) -> bool:
    try:
        with database.transaction() as session:
            forget_requests.withdraw(session, "test", request_id)
    except errors.Conflict:
        return False
    return True


def seal(model: str) -> None:
    with database.transaction() as session:
        row = session.scalars(sa.select(tables.Model).where(tables.Model.name == model)).one()
        sealing.flush(session, "test", row)


def test_joining_leaving_and_sealing_at_once_lose_no_sample(
    caller: api_keys.Caller, model: str
) -> None:
    """Half of the requests overlap another one, a third is withdrawn, and batches are sealed.

    Whatever the order: a sample is to be erased exactly if a request that stays names it, and the
    batch that erases it has that request among its members.
    """
    rng = np.random.default_rng(0)
    wanted = [rng.choice(duties.SAMPLES, 2, replace=False).tolist() for _ in range(120)]

    def live(index: int) -> tuple[uuid.UUID, bool]:
        request_id = submit(caller, model, *(f"s{item}" for item in wanted[index]))
        if index % 40 == 0:
            seal(model)
        return request_id, index % 3 == 0 and withdraw(request_id)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        lived = list(pool.map(live, range(len(wanted))))
    withdrawn = {request_id for request_id, gone in lived if gone}
    assert withdrawn
    named = {
        f"s{item}"
        for (request_id, _), ids in zip(lived, wanted, strict=True)
        for item in ids
        if request_id not in withdrawn
    }
    with database.transaction() as session:
        erased = set(session.scalars(sa.select(tables.Erasure.sample_id)))
        assert erased == named
        row = session.scalars(sa.select(tables.Model)).one()
        assert erasures.count(session, row) == len(named)
        of_label = collections.Counter(int(name[1:]) % 2 for name in named)
        assert erasures.count_of(session, row, [0, 1]) == of_label
        followed = session.execute(
            sa.select(tables.RequestSample.request_id, tables.RequestSample.sample_id)
            .join(tables.Erasure, tables.Erasure.sample_id == tables.RequestSample.sample_id)
            .join(
                tables.BatchMember,
                sa.and_(
                    tables.BatchMember.batch_id == tables.Erasure.batch_id,
                    tables.BatchMember.request_id == tables.RequestSample.request_id,
                ),
            )
        ).all()
        stays = [
            (request_id, f"s{item}")
            for (request_id, gone), ids in zip(lived, wanted, strict=True)
            for item in ids
            if not gone
        ]
        assert sorted(map(tuple, followed)) == sorted(stays)


def test_what_was_named_before_is_not_counted_twice_against_the_budget(
    caller: api_keys.Caller, model: str
) -> None:
    """200 of 240 samples may be named again and again; all 240 are more than 99 %."""
    ids = [f"s{index}" for index in range(duties.SAMPLES)]
    submit(caller, model, *ids[:200])
    submit(caller, model, *ids[:200])
    submit(caller, model, *ids[100:230])
    with pytest.raises(errors.Invalid) as refused:
        submit(caller, model, *ids)
    assert refused.value.code == "forget-budget-exceeded"


def test_who_names_the_last_samples_of_a_class_makes_it_whole(
    caller: api_keys.Caller, model: str
) -> None:
    """Class a are the even ones; the rest of it is judged as a class, what came before is not."""
    even = [f"s{index}" for index in range(0, duties.SAMPLES, 2)]
    requests = [
        submit(caller, model, *names) for names in (even[:60], even[30:119], [*even[100:], "s1"])
    ]
    kinds = [[batch.kind for batch in duties.batches_of(request)] for request in requests]
    assert kinds == [["samples"], ["samples"], ["samples", "class"]]


def test_a_steady_stream_of_joins_does_not_keep_a_batch_open(
    caller: api_keys.Caller, model: str
) -> None:
    """Eight threads join without a pause; sealing in their midst must get its turn."""
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        joins = [pool.submit(submit, caller, model, f"s{index}") for index in range(120)]
        joins[8].result(timeout=30)
        pool.submit(seal, model).result(timeout=30)
        for join in joins:
            join.result(timeout=30)
    with database.transaction() as session:
        states = session.scalars(sa.select(tables.Batch.state).order_by(tables.Batch.id)).all()
    assert list(states) in (["sealed", "open"], ["sealed"])
