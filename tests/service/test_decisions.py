"""Requests that need a person, and versions that one serves by hand, on a real PostgreSQL."""

import concurrent.futures
import uuid

import pytest
import sqlalchemy as sa

from benchmarks import bare_models
from salun_core import specs
from service import (
    aliases,
    api_keys,
    cancellation,
    database,
    destruction,
    errors,
    forget_requests,
    fulfilment,
    jobs,
    models,
    planning,
    plans,
    publication,
    queue,
    storage,
    tables,
    versions,
)
from tests.service import duties
from worker import endings

pytestmark = pytest.mark.usefixtures("empty")
AT_ONCE = bare_models.generous(0.0)


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


@pytest.fixture
def model() -> str:
    """A model whose requests are sealed as they come."""
    return duties.new_model(AT_ONCE)


def claim() -> jobs.Claim:
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    return claimed


def fail(claimed: jobs.Claim) -> None:
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        publication.close_job(session, job, "failed", "job_failed", {})


def failed(caller: api_keys.Caller, model: str, *ids: str) -> uuid.UUID:
    """A request whose job failed."""
    request_id = bare_models.submit(caller, model, bare_models.samples(*ids))
    fail(claim())
    return request_id


def approve(caller: api_keys.Caller, request_id: uuid.UUID) -> None:
    with database.transaction() as session:
        held = forget_requests.by_id(session, request_id, lock=True)
        forget_requests.approve(session, caller, held, "mended")


def deny(caller: api_keys.Caller, request_id: uuid.UUID) -> None:
    with database.transaction() as session:
        held = forget_requests.by_id(session, request_id, lock=True)
        fulfilment.deny(session, caller.actor, held, "no duty")


def state(request_id: uuid.UUID) -> tuple[str, str | None]:
    found = duties.request(request_id)
    return found.status, found.reason


def test_one_part_that_failed_is_not_hidden_by_another_that_is_served(
    caller: api_keys.Caller, model: str
) -> None:
    label = specs.ClassTarget(kind="class", label="a")
    request = bare_models.submit(caller, model, label, bare_models.samples("s1"))
    assert len(duties.batches_of(request)) == 2
    fail(claim())
    other = claim()
    with database.transaction() as session:
        fulfilment.advance(session, other.subject_id, "unlearning")
    assert state(request) == ("action_required", "job_failed")
    bare_models.publish(other)
    assert state(request) == ("action_required", "job_failed")
    approve(caller, request)
    bare_models.publish(claim())
    assert state(request) == ("completed", None)
    assert duties.request(request).result_version == 3


def test_who_names_what_waits_for_a_person_waits_for_one_too(
    caller: api_keys.Caller, model: str
) -> None:
    first = failed(caller, model, "s1")
    second = bare_models.submit(caller, model, bare_models.samples("s1", "s3"))
    assert state(second) == ("action_required", "job_failed")
    deny(caller, first)
    approve(caller, second)
    served = [bare_models.publish(claim()) for _ in range(2)]
    assert state(second) == ("completed", None)
    assert duties.request(second).result_version == served[-1]


def test_approving_one_does_not_approve_what_waits_for_more(
    caller: api_keys.Caller, model: str
) -> None:
    first = failed(caller, model, "s1")
    both = failed(caller, model, "s1", "s3")
    approve(caller, first)
    assert (state(first)[0], state(both)[0]) == ("pending", "action_required")
    bare_models.publish(claim())
    assert (state(first)[0], state(both)[0]) == ("completed", "action_required")
    approve(caller, both)
    bare_models.publish(claim())
    assert state(both)[0] == "completed"


def test_what_passed_but_is_not_served_is_not_erased_yet(caller: api_keys.Caller) -> None:
    model = duties.new_model({**AT_ONCE, "auto_publish": False})
    first = bare_models.submit(caller, model, bare_models.samples("s1"))
    assert bare_models.publish(claim()) == 2
    second = bare_models.submit(caller, model, bare_models.samples("s1"))
    assert state(first)[0] == "in_progress"
    assert (state(second)[0], duties.request(second).pending) == ("pending", 1)
    with database.transaction() as session:
        row = models.by_name(session, model)
        assert aliases.min_version(session, row) == 1
        aliases.move_by_hand(session, "test", row, "canary", 1, None)
        assert session.scalar(sa.select(tables.Erasure.erased_at)) is None
        publication.move_alias(session, "test", row, models.PRODUCTION, 2, 1)
    assert [duties.request(one).result_version for one in (first, second)] == [2, 2]
    assert [state(one) for one in (first, second)] == [("completed", None)] * 2
    with database.transaction() as session:
        row = models.by_name(session, model)
        assert aliases.min_version(session, row) == 2
        assert session.scalar(sa.select(tables.Erasure.erased_at)) is not None
        with pytest.raises(errors.Conflict, match="still holds 1 samples"):
            aliases.move_by_hand(session, "test", row, "canary", 1, 1)


def test_what_a_failed_job_made_leaves_the_store(caller: api_keys.Caller, model: str) -> None:
    bare_models.submit(caller, model, bare_models.samples("s1"))
    claimed = claim()
    plan, mask = (
        storage.put([name.encode()], destruction.arriving).digest
        for name in ("its plan", "its mask")
    )
    jobs.pin_inputs(claimed, {"plan": plan})
    jobs.commit_step(claimed, "computing_saliency", mask, 1.0)
    with database.transaction() as session:
        assert destruction.destroy(session) == 0
    fail(claimed)
    with database.transaction() as session:
        assert destruction.destroy(session) == 2
    assert not any(storage.path_of(digest).exists() for digest in (plan, mask))


def test_large_demands_do_not_pass_a_budget_side_by_side(caller: api_keys.Caller) -> None:
    """Each half of the samples fits within 60 %, both do not: the second is told so."""
    model = duties.new_model({**AT_ONCE, "max_forget_share": 0.6})
    halves = [[f"s{n}" for n in range(start, duties.SAMPLES, 2)] for start in (0, 1)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            first = bare_models.demand(model, bare_models.samples(*halves[0]))
            forget_requests.submit(session, caller, first)
            second = pool.submit(bare_models.submit, caller, model, bare_models.samples(*halves[1]))
            concurrent.futures.wait([second], timeout=1)
        with pytest.raises(errors.Invalid, match=r"allows 60\.0%"):
            second.result(timeout=30)


def test_approving_does_not_pass_a_budget_either(caller: api_keys.Caller) -> None:
    """Two demands of 30 % wait for a second person, who may let in one of them under 50 %."""
    policy = {**AT_ONCE, "max_forget_share": 0.5, "budget": {"daily_share": 0.25}}
    model = duties.new_model(policy)
    parts = [[f"s{n}" for n in range(start, start + 72)] for start in (0, 100)]
    held = [bare_models.submit(caller, model, bare_models.samples(*ids)) for ids in parts]
    assert [state(one)[0] for one in held] == ["action_required"] * 2
    second = bare_models.caller("second")
    approve(second, held[0])
    with pytest.raises(errors.Invalid, match=r"allows 50\.0%"):
        approve(second, held[1])
    assert [state(one)[0] for one in held] == ["pending", "action_required"]


def test_what_was_stopped_and_then_failed_is_not_split(caller: api_keys.Caller) -> None:
    """Who stopped it was told that it ends; halves would go on."""
    model = duties.new_model(duties.HOUR)
    requests = [bare_models.submit(caller, model, bare_models.samples(f"s{n}")) for n in range(2)]
    bare_models.flush(model)
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    with database.transaction() as session:
        cancellation.cancel(session, "test", claimed.job_id)
    endings.fail(claimed, "NonFiniteLossError", "loss is not a number", divisible=True)
    assert duties.queued(model) == []
    assert {duties.request(one).reason for one in requests} == {cancellation.REASON}


def test_what_was_denied_cannot_be_withdrawn(caller: api_keys.Caller) -> None:
    model = duties.new_model({**AT_ONCE, "budget": {"daily_share": 0.01}})
    held = bare_models.submit(caller, model, bare_models.samples(*(f"s{n}" for n in range(9))))
    deny(caller, held)
    with database.transaction() as session, pytest.raises(errors.Conflict, match="is denied"):
        forget_requests.withdraw(session, "test", held)
    assert state(held)[0] == "denied"


def test_denying_one_does_not_strand_who_waits_for_the_same(caller: api_keys.Caller) -> None:
    """Its first part waits to be served, the other for a person; s1 is demanded once more."""
    model = duties.new_model({**AT_ONCE, "auto_publish": False, "batch_window_seconds": 3600.0})
    classes = specs.ClassTarget(kind="class", label="a")
    first = bare_models.submit(caller, model, bare_models.samples("s1"), classes)
    bare_models.flush(model)
    bare_models.publish(claim())
    fail(claim())
    passed = next(one for one in duties.batches_of(first) if one.result_version is not None)
    deny(caller, first)
    again = bare_models.submit(
        caller, model, bare_models.samples("s1" if passed.kind == "samples" else "s0")
    )
    assert state(again)[0] == "pending"
    with database.transaction() as session:
        row = models.by_name(session, model)
        publication.move_alias(session, "test", row, models.PRODUCTION, 2, 1)
    assert state(again)[0] == "completed"


@pytest.mark.parametrize("taken_back", [True, False])
def test_a_class_of_which_something_is_kept_is_so_many_samples(
    caller: api_keys.Caller, taken_back: bool
) -> None:
    """Two demands come to a whole class by ids; then the first is withdrawn, or not."""
    model = duties.new_model(bare_models.generous(3600.0))
    halves = [[f"s{n}" for n in range(start, duties.SAMPLES, 4)] for start in (0, 2)]
    first, second = (bare_models.submit(caller, model, bare_models.samples(*ids)) for ids in halves)
    assert [batch.kind for batch in duties.batches_of(second)] == ["class"]
    if taken_back:
        with database.transaction() as session:
            forget_requests.withdraw(session, "test", first)
    bare_models.flush(model)
    if not taken_back:
        bare_models.publish(claim())
    claimed = claim()
    assert claimed.subject_id in [batch.id for batch in duties.batches_of(second)]
    assert planning.pinned(claimed).kind == ("samples" if taken_back else "class")


def three_classes() -> str:
    """A model over n = 0, 2 (mod 4), 1 and 3."""
    model = duties.new_model(bare_models.generous(3600.0))
    quarter = duties.SAMPLES // 4
    third = [f"s{n}" for n in range(3, duties.SAMPLES, 4)]
    with database.transaction() as session:
        dataset = models.by_name(session, model).dataset
        named = tables.Sample.sample_id.in_(third)
        session.execute(sa.update(tables.Sample).where(named).values(label=2))
        dataset.class_sizes = {"0": 2 * quarter, "1": quarter, "2": quarter}
        dataset.label_names = [*dataset.label_names, "third"]
    return model


def test_of_a_class_that_goes_next_nothing_is_asked(caller: api_keys.Caller) -> None:
    """The job must not train on it any more, so the net may lose it."""
    model = three_classes()
    bare_models.submit(caller, model, bare_models.samples("s0", "s2"))
    bare_models.flush(model)
    whole = [f"s{n}" for n in range(1, duties.SAMPLES, 4)]
    bare_models.submit(caller, model, bare_models.samples(*whole))
    bare_models.flush(model)
    plan = planning.pinned(claim())
    assert (plan.kind, plan.excluded_labels, plan.absent_labels) == ("samples", [], (1,))


def test_a_class_that_loses_a_part_after_it_was_sealed_is_set_apart(
    caller: api_keys.Caller,
) -> None:
    model = three_classes()
    every = [f"s{n}" for n in range(duties.SAMPLES)]
    first = bare_models.submit(caller, model, bare_models.samples(*every[0::4]))
    both = bare_models.submit(caller, model, bare_models.samples(*every[1::4], *every[2::4]))
    assert {batch.kind for batch in duties.batches_of(both)} == {"class"}
    with database.transaction() as session:
        forget_requests.withdraw(session, "test", first)
    bare_models.flush(model)
    plans = {}
    for ended in (False, True):
        claimed = claim()
        plan = planning.pinned(claimed)
        plans[plan.kind] = (sorted(plan.forget_ids), sorted(plan.withheld_ids))
        assert planning.pinned(claimed) == plan
        bare_models.publish(claimed)
        assert (state(both)[0] == "completed") is ended
    odd, half = sorted(every[1::4]), sorted(every[2::4])
    assert plans == {"class": (odd, half), "samples": (half, [])}


def test_samples_that_are_all_that_is_left_of_a_class_are_a_class(caller: api_keys.Caller) -> None:
    """What was named first waits as samples; others name the rest of the class meanwhile."""
    model = three_classes()
    every = [f"s{n}" for n in range(duties.SAMPLES)]
    first = bare_models.submit(caller, model, bare_models.samples(*every[0::4], "s3"))
    bare_models.submit(caller, model, bare_models.samples(*every[2::4]))
    assert [batch.kind for batch in duties.batches_of(first)] == ["samples"]
    bare_models.flush(model)
    kinds = []
    while (claimed := jobs.claim(queue.UNLEARNING, "test")) is not None:
        plan = planning.pinned(claimed)
        kinds.append((plan.kind, len(plan.forget_ids)))
        bare_models.publish(claimed)
    assert sorted(kinds) == [
        ("class", duties.SAMPLES // 4),
        ("class", duties.SAMPLES // 4),
        ("samples", 1),
    ]
    assert state(first)[0] == "completed"


def test_what_may_be_taken_back_makes_no_class_of_samples(caller: api_keys.Caller) -> None:
    """Others demand the rest of a class and may still withdraw: it must stay as good as it was."""
    model = three_classes()
    every = [f"s{n}" for n in range(duties.SAMPLES)]
    bare_models.submit(caller, model, bare_models.samples("s1", "s3"))
    bare_models.flush(model)
    rest = bare_models.submit(caller, model, bare_models.samples(*every[5::4], "s0"))
    plan = planning.pinned(claim())
    assert (plan.kind, sorted(plan.forget_ids)) == ("samples", ["s1", "s3"])
    assert (list(plan.withheld_ids), plan.absent_labels) == (["s0"], ())
    with database.transaction() as session:
        forget_requests.withdraw(session, "test", rest)


def test_a_class_that_goes_piece_by_piece_is_asked_nothing_while_the_last_waits(
    caller: api_keys.Caller,
) -> None:
    model = three_classes()
    every = [f"s{n}" for n in range(duties.SAMPLES)]
    bare_models.submit(caller, model, bare_models.samples(*every[1::8]))
    bare_models.flush(model)
    bare_models.publish(claim())
    bare_models.submit(caller, model, bare_models.samples("s0"))
    bare_models.flush(model)
    bare_models.submit(caller, model, bare_models.samples(*every[5::8]))
    bare_models.flush(model)
    plan = planning.pinned(claim())
    assert (plan.kind, plan.forget_ids, plan.withheld_labels) == ("samples", ["s0"], [1])


def test_an_audit_asks_nothing_of_a_class_that_went_after_the_version(
    caller: api_keys.Caller,
) -> None:
    """Nets that are retrained for it go without the class, and would be measured on it."""
    model = three_classes()
    every = [f"s{n}" for n in range(duties.SAMPLES)]
    for named in (["s0", "s1"], every[3::4]):
        bare_models.submit(caller, model, bare_models.samples(*named))
        bare_models.flush(model)
        claimed = claim()
        last = planning.pinned(claimed)
        bare_models.publish(claimed)
    assert last.kind == "class"
    with database.transaction() as session:
        version = versions.by_number(session, models.by_name(session, model), 2)
        made_by = plans.of_version(session, version)
        audited = plans.without_erased(session, version, made_by)
    assert (made_by.withheld_ids, made_by.absent_labels) == ([], ())
    assert audited.withheld_ids == sorted(every[3::4])
    assert len(audited.absent_labels) == 1
    assert audited.forget_ids == made_by.forget_ids


@pytest.mark.parametrize("first", [["s0", "s3"], ["s3"]])
def test_an_audit_asks_nothing_of_what_a_version_took_of_a_class_that_went_since(
    caller: api_keys.Caller, first: list[str]
) -> None:
    """Nets retrained without the class know none of it, whatever the version remembers."""
    model = three_classes()
    every = [f"s{n}" for n in range(duties.SAMPLES)]
    for named in (first, every[7::4]):
        bare_models.submit(caller, model, bare_models.samples(*named))
        bare_models.flush(model)
        claimed = claim()
        planning.pinned(claimed)
        bare_models.publish(claimed)
    with database.transaction() as session:
        version = versions.by_number(session, models.by_name(session, model), 2)
        made_by = plans.of_version(session, version)
        assert (made_by.kind, list(made_by.forget_ids)) == ("samples", first)
        if first == ["s3"]:
            with pytest.raises(errors.Conflict, match="forgotten as a whole since"):
                plans.without_erased(session, version, made_by)
            return
        audited = plans.without_erased(session, version, made_by)
    assert (list(audited.forget_ids), audited.withheld_labels) == (["s0"], [2])
    assert list(audited.withheld_ids) == sorted(every[3::4])


def test_an_overtaken_run_plans_nothing(caller: api_keys.Caller) -> None:
    model = three_classes()
    every = [f"s{n}" for n in range(duties.SAMPLES)]
    bare_models.submit(caller, model, bare_models.samples("s1", "s3"))
    bare_models.flush(model)
    late = claim()
    with database.transaction() as session:
        fence = tables.Job.fence + 1000
        session.execute(
            sa.update(tables.Job).where(tables.Job.id == late.job_id).values(fence=fence)
        )
    bare_models.submit(caller, model, bare_models.samples(*every[5::4]))
    bare_models.flush(model)
    with pytest.raises(errors.LeaseLost):
        planning.pinned(late)
    with database.transaction() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(tables.Batch)) == 2
