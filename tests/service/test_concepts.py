"""Demands for concepts: which samples they name, where two of them meet, what a job gets."""

import collections
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from salun_core import generation_specs, specs
from service import (
    aliases,
    api_keys,
    audit_options,
    audits,
    batches,
    database,
    demands,
    erasures,
    errors,
    families,
    forget_requests,
    models,
    planning,
    tables,
    versions,
)

TEXTS = (
    "a Twemoji cat", "twemoji of a heart", "a noto cat", "noto of a heart", "twemojis in a row",
    "a grey cat",
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("empty")


@pytest.fixture
def caller() -> api_keys.Caller:
    with database.transaction() as session:
        row, _ = api_keys.create(session, "test", "caller", ["admin"])
        return api_keys.Caller(row.id, row.name, frozenset(row.scopes))


def register(family: specs.Family, texts: Sequence[str | None], labels: Sequence[str]) -> str:
    """A model over one training sample a text, which waits an hour for more requests."""
    with database.transaction() as session:
        dataset = tables.Dataset(
            name=family, files=[], status="ready", rows=len(texts), splits={"train": len(texts)},
            label_names=list(labels),
            class_sizes=collections.Counter(
                str(index % len(labels)) for index, _ in enumerate(texts) if labels
            ),
        )  # fmt: skip
        session.add(dataset)
        session.flush()
        session.add_all(
            tables.Sample(
                dataset_id=dataset.id, sample_id=f"s{index}", split="train", text=text,
                label=index % len(labels) if labels else None, content_hash=bytes([index]),
                file_index=0, row_group=0, row_index=index,
            )
            for index, text in enumerate(texts)
        )  # fmt: skip
        policy = models.ModelPolicy(
            batch_window_seconds=3600.0,
            max_forget_share=0.99,
            budget=models.Budget(daily_share=None),
            sampling=generation_specs.Sampling(steps=7),
        )
        model = models.register(session, "test", f"{family}-net", family, family, policy)
        model.head = 1
        session.add(tables.Version(model_id=model.id, number=1, manifest=b"", manifest_digest=""))
    return f"{family}-net"


@pytest.fixture
def model() -> str:
    return register("text_to_image", TEXTS, [])


def concept(name: str, replacement: str = "noto", **more: Any) -> specs.ConceptTarget:
    return specs.ConceptTarget(kind="concept", concept=name, replacement=replacement, **more)


def demand(model: str, *targets: specs.Target, **method: Any) -> demands.Demand:
    return demands.Demand(
        model=model, targets=targets, method=method, subject_request_id=None,
        priority="standard", body={}, digest="",
    )  # fmt: skip


def submit(caller: api_keys.Caller, model: str, *targets: specs.Target) -> tables.ForgetRequest:
    with database.transaction() as session:
        return forget_requests.submit(session, caller, demand(model, *targets))


def open_concepts() -> list[str]:
    with database.transaction() as session:
        return list(session.scalars(sa.select(tables.ConceptErasure.concept)))


def test_a_concept_names_the_texts_that_hold_it_as_whole_words(
    caller: api_keys.Caller, model: str
) -> None:
    request = submit(caller, model, concept("TWEMOJI"))
    assert (request.matched, request.status) == (2, "pending")
    with database.transaction() as session:
        assert set(session.scalars(sa.select(tables.Erasure.sample_id))) == {"s0", "s1"}
        assert [batch.kind for batch in session.scalars(sa.select(tables.Batch))] == ["concept"]
        seen = demands.preview(session, demand(model, concept("cat", "dog")))
    assert (seen.matched, seen.already_erased, seen.pending) == (2, 0, 1)
    assert seen.jobs == ("concept",)


def test_a_concept_that_no_sample_names_is_accepted(caller: api_keys.Caller, model: str) -> None:
    request = submit(caller, model, concept("Van  Gogh style", "a painting", prompts=("a sky",)))
    assert (request.matched, request.status) == (0, "pending")
    with database.transaction() as session:
        batch = session.scalars(sa.select(tables.Batch)).one()
        plan = planning._make(session, batch)
    assert plan.forget_ids == []
    assert not plan.is_empty
    assert plan.concept_targets == (concept("van gogh style", "a painting", prompts=("a sky",)),)
    assert plan.sampled.steps == 7
    assert {spec.method for spec in plan.ladder} == {"salun"}


def test_two_demands_for_one_concept_meet(caller: api_keys.Caller, model: str) -> None:
    first = submit(caller, model, concept("twemoji"))
    second = submit(caller, model, concept("Twemoji", "openmoji"))
    assert (second.matched, second.pending, second.already_erased) == (0, 2, 0)
    assert open_concepts() == ["twemoji"]
    withdraw(first.id)
    assert open_concepts() == ["twemoji"]
    withdraw(second.id)
    assert open_concepts() == []
    with database.transaction() as session:
        assert not session.scalars(sa.select(tables.Erasure)).all()


def test_a_text_that_is_one_of_the_prompts_belongs_to_the_concept(
    caller: api_keys.Caller, model: str
) -> None:
    asked = concept("twemoji", prompts=("A  grey CAT", "a cat"))
    with database.transaction() as session:
        seen = demands.preview(session, demand(model, asked))
    request = submit(caller, model, asked)
    assert seen.matched == request.matched == 3
    with database.transaction() as session:
        batch = session.scalars(sa.select(tables.Batch)).one()
        plan = planning._make(session, batch)
    assert (batch.kind, plan.forget_ids) == ("concept", ["s0", "s1", "s5"])


@pytest.mark.parametrize("is_one_demand", [False, True])
def test_the_prompts_of_the_first_demand_for_a_concept_hold(
    caller: api_keys.Caller, model: str, is_one_demand: bool
) -> None:
    first = concept("twemoji", prompts=("a grey cat",))
    later = concept("Twemoji", "openmoji", prompts=("noto of a heart",))
    if is_one_demand:
        assert submit(caller, model, first, later).matched == 3
    else:
        submit(caller, model, first)
        second = submit(caller, model, later)
        assert (second.matched, second.pending, second.already_erased) == (0, 3, 0)
    with database.transaction() as session:
        assert set(session.scalars(sa.select(tables.Erasure.sample_id))) == {"s0", "s1", "s5"}
        batch = session.scalars(sa.select(tables.Batch)).one()
        assert batches.concept_targets(session, batch.id) == [first]
        erasures.mark_erased(session, batch.id, 2)
        erasures.mark_served(session, batch.id)
    again = submit(caller, model, later)
    assert (again.status, again.already_erased, again.result_version) == ("completed", 3, 2)


def test_samples_that_an_erased_concept_left_behind_are_forgotten_as_samples(
    caller: api_keys.Caller, model: str
) -> None:
    """As where it was erased before the prompts' own texts belonged to it."""
    asked = concept("twemoji", prompts=("a grey cat",))
    submit(caller, model, asked)
    with database.transaction() as session:
        batch = session.scalars(sa.select(tables.Batch)).one()
        session.execute(sa.delete(tables.Erasure).where(tables.Erasure.sample_id == "s5"))
        erasures.mark_erased(session, batch.id, 2)
        erasures.mark_served(session, batch.id)
        seen = demands.preview(session, demand(model, asked))
    again = submit(caller, model, asked)
    assert (again.matched, again.already_erased, again.status) == (1, 2, "pending")
    assert (seen.matched, seen.jobs) == (1, ("samples",))
    with database.transaction() as session:
        found = session.scalars(sa.select(tables.Batch).where(tables.Batch.id != batch.id)).one()
        assert (found.kind, batches.sample_ids(session, found.id)) == ("samples", ["s5"])


def test_a_replacement_that_is_forgotten_too_is_refused(
    caller: api_keys.Caller, model: str
) -> None:
    noto = concept("noto", "fluent", prompts=("plain cat",))
    earlier = submit(caller, model, noto)
    for replacement in ("a Noto picture", "Plain  cat"):
        with pytest.raises(errors.Invalid, match="names another concept") as refused:
            submit(caller, model, concept("grey", "black"), concept("twemoji", replacement))
        (problem,) = refused.value.problems
        assert (problem.pointer, problem.code) == (
            "/targets/1/replacement", "replacement-is-erased"
        )  # fmt: skip
    withdraw(earlier.id)
    assert submit(caller, model, concept("twemoji", "noto")).matched == 2


def test_a_demand_replaces_nothing_by_what_it_names_itself(
    caller: api_keys.Caller, model: str
) -> None:
    with pytest.raises(errors.Invalid) as refused:
        submit(caller, model, concept("twemoji", "noto"), concept("noto", "fluent"))
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.code) == ("/targets/0/replacement", "replacement-is-erased")


def test_a_concept_whose_replacement_was_forgotten_since_may_be_named_again(
    caller: api_keys.Caller, model: str
) -> None:
    submit(caller, model, concept("twemoji", "noto"))
    submit(caller, model, concept("noto", "fluent"))
    again = submit(caller, model, concept("twemoji", "noto"))
    assert (again.matched, again.pending) == (0, 2)


def withdraw(request_id: uuid.UUID) -> None:
    with database.transaction() as session:
        forget_requests.withdraw(session, "test", request_id)


def test_what_is_erased_already_is_answered_at_once_and_binds_aliases(
    caller: api_keys.Caller, model: str
) -> None:
    submit(caller, model, concept("unheard of", "nothing"))
    with database.transaction() as session:
        batch = session.scalars(sa.select(tables.Batch)).one()
        erasures.mark_erased(session, batch.id, 2)
        erasures.mark_served(session, batch.id)
        row = models.by_name(session, model)
        version = session.scalars(sa.select(tables.Version)).one()
        assert aliases.missing_erasures(session, row, version) == 1
        assert aliases.min_version(session, row) == 2
        assert erasures.forgotten_digest(session, row) is not None
    again = submit(caller, model, concept("Unheard Of", "nothing"))
    assert (again.status, again.result_version) == ("completed", 2)


def test_samples_and_concepts_go_into_batches_of_their_own(
    caller: api_keys.Caller, model: str
) -> None:
    request = submit(
        caller, model, concept("twemoji"), specs.SampleTarget(kind="sample", ids=("s0", "s5"))
    )
    assert request.matched == 3
    with database.transaction() as session:
        found = {
            batch.kind: batches.sample_ids(session, batch.id)
            for batch in session.scalars(sa.select(tables.Batch))
        }
        plans = {
            batch.kind: planning._make(session, batch)
            for batch in session.scalars(sa.select(tables.Batch))
        }
    assert found == {"concept": ["s0", "s1"], "samples": ["s5"]}
    assert plans["samples"].withheld_ids == ["s0", "s1"]
    assert plans["samples"].concepts == []
    assert plans["concept"].ladder[0].targets == "replacement"
    assert plans["concept"].ladder[-1].method == "retrain"


@pytest.mark.parametrize(
    ("target", "code", "told"),
    [
        (specs.ClassTarget(kind="class", label="cat"), "unsupported-target", "expected a concept"),
        (concept("noto", "a Noto picture"), "replacement-is-concept", "drawn instead"),
        (concept(" ", "x"), "blank-concept", "expected words"),
    ],
)
def test_what_a_text_model_cannot_forget_is_told(
    caller: api_keys.Caller, model: str, target: specs.Target, code: str, told: str
) -> None:
    with pytest.raises(errors.Invalid, match=told) as refused:
        submit(caller, model, target)
    assert refused.value.problems[0].code == code


def test_other_families_are_told_to_name_a_class(caller: api_keys.Caller) -> None:
    model = register("class_conditional_diffusion", [None] * 6, ["a", "b"])
    with pytest.raises(errors.Invalid, match="expected a class") as refused:
        submit(caller, model, concept("a", "b"))
    assert refused.value.problems[0].pointer == "/targets/0/kind"
    request = submit(caller, model, specs.ClassTarget(kind="class", label="b"))
    with database.transaction() as session:
        batch = session.scalars(sa.select(tables.Batch)).one()
        plan = planning._make(session, batch)
    assert request.matched == len(plan.forget_ids) == 3
    assert (plan.kind, plan.family) == ("class", "class_conditional_diffusion")


def test_a_model_needs_data_that_tells_what_it_is_asked_for() -> None:
    with pytest.raises(errors.Invalid, match="has a label"):
        register("class_conditional_diffusion", ["a text"], [])
    with pytest.raises(errors.Invalid, match="has a text"):
        register("text_to_image", [None], ["a"])


def test_fields_of_another_family_are_told() -> None:
    with pytest.raises(errors.Invalid, match="which recipes of text_to_image have not") as refused:
        families.check_method("text_to_image", {"epochs": 3})
    assert refused.value.problems[0].pointer == "/method/epochs"
    with pytest.raises(errors.Invalid, match="which recipes of classifier have not"):
        families.check_method("classifier", {"steps": 3})
    families.check_method("text_to_image", {"steps": 3})


def test_an_audit_of_a_generator_is_refused(model: str) -> None:
    with database.transaction() as session:
        version = versions.by_number(session, models.by_name(session, model), 1)
        version.job_id, version.report = uuid.uuid4(), {"method": {}}
        with pytest.raises(errors.Invalid, match="expected classifier") as refused:
            audits.request(session, "test", version, audit_options.AuditOptions())
    assert refused.value.code == "unsupported"
