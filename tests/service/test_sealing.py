"""Which rule seals a batch, what a class absorbs, who waits for a second person."""

import pytest
import sqlalchemy as sa

from benchmarks import bare_models
from salun_core import specs
from service import (
    api_keys,
    database,
    demands,
    erasures,
    errors,
    forget_requests,
    models,
    sealing,
    tables,
)
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty")
CLASS_A = specs.ClassTarget(kind="class", label="a")
CLASS_B = specs.ClassTarget(kind="class", label="b")
GENEROUS = {"max_forget_share": 0.99, "budget": {"daily_share": None}}


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


def seal_due() -> int:
    with database.transaction() as session:
        return sealing.seal_due(session)


def rules_told() -> list[list[str]]:
    with database.transaction() as session:
        found = sa.select(tables.AuditEntry.detail).where(tables.AuditEntry.action == "batch.seal")
        return [detail["rules"] for detail in session.scalars(found)]


def test_a_batch_waits_for_its_window(caller: api_keys.Caller) -> None:
    model = duties.new_model(duties.HOUR)
    bare_models.submit(caller, model, bare_models.samples("s1"))
    assert seal_due() == 0
    with database.transaction() as session:
        session.execute(sa.update(tables.Batch).values(opened_at=sa.text("now() - interval '1 h'")))
    assert seal_due() == 1
    assert rules_told() == [["window"]]
    assert len(duties.queued(model)) == 1


def test_a_batch_is_sealed_when_its_most_urgent_member_must_begin(
    caller: api_keys.Caller,
) -> None:
    """Jobs of 2 hours, 3 attempts, a margin of a day: 30 hours before the due date, not 31."""
    model = duties.new_model(
        {"batch_window_seconds": 90 * 86_400.0, "deadline_margin_seconds": 86_400.0}
    )
    duties.finished_job(model, 7200)
    urgent = bare_models.submit(caller, model, bare_models.samples("s1"))
    bare_models.submit(caller, model, bare_models.samples("s2"))
    found = duties.request(urgent)
    month = (found.due_at - found.received_at).total_seconds() / 86_400
    duties.shift(urgent, month - 31 / 24)
    assert seal_due() == 0
    duties.shift(urgent, 1.1 / 24)
    assert seal_due() == 1
    assert rules_told() == [["latest_start"]]
    job = duties.queued(model)[0]
    assert job.due_at == duties.request(urgent).due_at


def test_a_batch_is_sealed_at_its_limits(caller: api_keys.Caller) -> None:
    by_count = duties.new_model({**duties.HOUR, "max_batch_requests": 3})
    by_share = duties.new_model({**duties.HOUR, "max_batch_share": 0.05}, "second")
    for index in range(2):
        bare_models.submit(caller, by_count, bare_models.samples(f"s{index}"))
    bare_models.submit(caller, by_share, bare_models.samples(*(f"s{index}" for index in range(11))))
    assert seal_due() == 0
    bare_models.submit(caller, by_count, bare_models.samples("s2"))
    bare_models.submit(caller, by_share, bare_models.samples("s11"))
    assert seal_due() == 2
    assert sorted(rules_told()) == [["requests"], ["share"]]


def test_an_expedited_demand_takes_all_that_waits_along(caller: api_keys.Caller) -> None:
    model = duties.new_model(duties.HOUR)
    first = bare_models.submit(caller, model, bare_models.samples("s1"))
    with pytest.raises(errors.Invalid) as refused:
        bare_models.submit(caller, model, bare_models.samples("s2"), priority="expedited")
    assert refused.value.code == "reason-required"
    second = bare_models.submit(
        caller, model, bare_models.samples("s2"), priority="expedited", reason="a court order"
    )
    waiting = duties.queued(model)
    assert [job.subject_id for job in waiting] == [duties.batches_of(first)[0].id]
    assert duties.batches_of(first)[0].id == duties.batches_of(second)[0].id
    assert duties.erased_by(waiting[0].subject_id) == ["s1", "s2"]
    assert rules_told() == [["expedited"]]


def test_a_class_absorbs_what_waits_of_it(caller: api_keys.Caller) -> None:
    """s0 and s2 are of class a, s1 is of b: s1 stays, and who named both waits for both."""
    model = duties.new_model({**duties.HOUR, **GENEROUS})
    only = bare_models.submit(caller, model, bare_models.samples("s0"))
    both = bare_models.submit(caller, model, bare_models.samples("s1", "s2"))
    of_class = bare_models.submit(caller, model, CLASS_A)
    whole = duties.batches_of(of_class)
    assert [batch.kind for batch in whole] == ["class"]
    assert len(duties.erased_by(whole[0].id)) == duties.SAMPLES / 2
    assert [batch.id for batch in duties.batches_of(only)] == [whole[0].id]
    assert sorted(batch.kind for batch in duties.batches_of(both)) == ["class", "samples"]
    rest = next(batch for batch in duties.batches_of(both) if batch.kind == "samples")
    assert duties.erased_by(rest.id) == ["s1"]

    with database.transaction() as session:
        forget_requests.withdraw(session, "test", of_class)
    assert [batch.kind for batch in duties.batches_of(only)] == ["samples"]
    assert duties.erased_by(duties.batches_of(only)[0].id) == ["s0", "s1", "s2"]
    with database.transaction() as session:
        row = session.scalars(sa.select(tables.Model)).one()
        assert erasures.count(session, row) == 3
        assert erasures.count_of(session, row, [0, 1]) == {0: 2, 1: 1}
        states = dict(session.execute(sa.select(tables.Batch.kind, tables.Batch.state)).all())
    assert states == {"samples": "open", "class": "withdrawn"}


def test_a_sealed_batch_is_not_robbed_by_a_class(caller: api_keys.Caller) -> None:
    model = duties.new_model({**duties.HOUR, **GENEROUS})
    first = bare_models.submit(caller, model, bare_models.samples("s0"))
    with database.transaction() as session:
        row = session.scalars(sa.select(tables.Model)).one()
        sealing.flush(session, "test", row)
    of_class = bare_models.submit(caller, model, CLASS_A)
    assert duties.erased_by(duties.batches_of(first)[0].id) == ["s0"]
    assert {batch.kind for batch in duties.batches_of(of_class)} == {"samples", "class"}


def test_over_budget_a_second_person_decides(caller: api_keys.Caller) -> None:
    """A quarter of 240 samples a day: 60 pass, one more does not before another key says so."""
    model = duties.new_model({})
    bare_models.submit(caller, model, bare_models.samples(*(f"s{index}" for index in range(60))))
    held = bare_models.submit(caller, model, bare_models.samples("s60"))
    found = duties.request(held)
    assert (found.status, found.stage) == ("action_required", "awaiting_approval")
    assert (found.reason, found.matched) == ("budget_exceeded", 0)
    assert duties.batches_of(held) == []
    with database.transaction() as session:
        request = forget_requests.by_id(session, held, lock=True)
        with pytest.raises(errors.Forbidden) as refused:
            forget_requests.approve(session, caller, request, "mine")
    assert refused.value.code == "second-person-required"

    other = bare_models.caller("another")
    with database.transaction() as session:
        request = forget_requests.by_id(session, held, lock=True)
        forget_requests.approve(session, other, request, "a recall of a whole product")
    found = duties.request(held)
    assert (found.status, found.reason, found.matched) == ("pending", None, 1)
    assert duties.erased_by(duties.batches_of(held)[0].id) == ["s60"]
    assert len(duties.queued(model)) == 2


def test_emptying_a_class_sample_by_sample_can_be_put_before_a_second_person(
    caller: api_keys.Caller,
) -> None:
    model = duties.new_model({"budget": {"class_share": 0.1, "daily_share": None}})
    few = bare_models.submit(
        caller, model, bare_models.samples(*(f"s{2 * index}" for index in range(12)))
    )
    many = bare_models.submit(
        caller, model, bare_models.samples(*(f"s{2 * index}" for index in range(13)))
    )
    whole = bare_models.submit(caller, model, CLASS_A)
    assert [duties.request(one).stage for one in (few, many, whole)] == [
        "sealed",
        "awaiting_approval",
        "sealed",
    ]


def test_nor_is_a_class_emptied_piece_by_piece_or_beside_another(
    caller: api_keys.Caller,
) -> None:
    model = duties.new_model({**GENEROUS, "budget": {"class_share": 0.1, "daily_share": None}})
    few = bare_models.submit(caller, model, bare_models.samples(*(f"s{2 * n}" for n in range(12))))
    again = bare_models.submit(caller, model, bare_models.samples("s0", "s2"))
    more = bare_models.submit(caller, model, bare_models.samples("s24"))
    other = bare_models.submit(caller, model, bare_models.samples("s1"))
    beside = bare_models.submit(caller, model, CLASS_B, bare_models.samples("s26"))
    held = [duties.request(one).stage == "awaiting_approval" for one in (few, again, more, other)]
    assert held == [False, False, True, False]
    assert duties.request(beside).stage == "awaiting_approval"
    duties.shift(few, 2)
    later = bare_models.submit(caller, model, bare_models.samples("s28"))
    assert duties.request(later).stage != "awaiting_approval"


def test_a_small_demand_does_not_seal_what_it_only_follows(caller: api_keys.Caller) -> None:
    """Two of them at once would seal it twice: the sweeper does."""
    model = duties.new_model(duties.HOUR)
    first = bare_models.submit(caller, model, bare_models.samples("s1"))
    with database.transaction() as session:
        row = models.by_name(session, model)
        row.policy = {**row.policy, "batch_window_seconds": 0.0}
    bare_models.submit(caller, model, bare_models.samples("s1"))
    assert [batch.state for batch in duties.batches_of(first)] == ["open"]
    assert seal_due() == 1
    assert len(duties.queued(model)) == 1


def test_a_dry_run_tells_of_an_unknown_class_whatever_the_budget() -> None:
    model = duties.new_model({"budget": {"class_share": 0.1}})
    nobody = specs.ClassTarget(kind="class", label="nobody")
    with database.transaction() as session:
        told = demands.preview(
            session, bare_models.demand(model, nobody, bare_models.samples("s1"))
        )
    assert [problem.code for problem in told.unknown] == ["unknown-class"]


def test_what_was_erased_long_ago_counts_for_no_class_budget(caller: api_keys.Caller) -> None:
    model = duties.new_model({**GENEROUS, "budget": {"class_share": 0.1, "daily_share": None}})
    old = [f"s{2 * n}" for n in range(12)]
    first = bare_models.submit(caller, model, bare_models.samples(*old))
    duties.shift(first, 2)
    with database.transaction() as session:
        session.execute(sa.update(tables.Erasure).values(version=2, erased_at=sa.func.now()))
    bare_models.submit(caller, model, bare_models.samples(*old))  # again
    one = bare_models.submit(caller, model, bare_models.samples("s24"))
    assert duties.request(one).stage != "awaiting_approval"


def test_a_class_whose_samples_all_wait_elsewhere_is_sealed_at_once_too(
    caller: api_keys.Caller,
) -> None:
    """The window was an hour when they came, and is none now."""
    model = duties.new_model({**GENEROUS, **duties.HOUR})
    first = bare_models.submit(
        caller, model, bare_models.samples(*(f"s{2 * n}" for n in range(120)))
    )
    with database.transaction() as session:
        row = models.by_name(session, model)
        row.policy = {**row.policy, "batch_window_seconds": 0.0}
    whole = bare_models.submit(caller, model, CLASS_A)
    assert {batch.state for batch in duties.batches_of(whole)} == {"sealed"}
    assert duties.request(first).stage == "sealed"


def test_what_awaits_approval_can_be_withdrawn(caller: api_keys.Caller) -> None:
    model = duties.new_model({"budget": {"daily_share": 0.01}})
    held = bare_models.submit(caller, model, bare_models.samples("s1", "s2", "s3"))
    assert duties.request(held).stage == "awaiting_approval"
    with database.transaction() as session:
        forget_requests.withdraw(session, "test", held)
    assert duties.request(held).status == "cancelled"
