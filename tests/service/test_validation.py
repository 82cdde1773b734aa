"""A net trained anew, between an upload and what is served, on a real PostgreSQL."""

import uuid

import pytest

from benchmarks import bare_models
from service import (
    database,
    disposal,
    jobs,
    models,
    publication,
    queue,
    tables,
    validation,
    versions,
)
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty")


def forgotten(model: str, sample: str) -> uuid.UUID:
    """A request whose job passed."""
    request_id = bare_models.submit(bare_models.caller(sample), model, bare_models.samples(sample))
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    bare_models.publish(claimed)
    return request_id


def uploaded(model: str, *forgets: int) -> int:
    """A staged version whose training data lacked what these versions have forgotten."""
    with database.transaction() as session:
        row = models.by_name(session, model)
        lineage = {"anchor": None, "chain": [], "chain_length": 0, "forgets": list(forgets)}
        return versions.add(session, row, [], lineage=lineage).number


def conclude(model: str, number: int) -> str | None:
    """End its validation; the code of the refusal."""
    with database.transaction() as session:
        version = versions.by_number(session, models.by_name(session, model), number)
        refused = validation.conclude(session, version, None)
        return None if refused is None else refused.code


def served(model: str) -> tuple[int, int | None, str]:
    """What production points at, the head, and the head's state."""
    with database.transaction() as session:
        row = models.by_name(session, model)
        alias = session.get_one(tables.Alias, (row.id, models.PRODUCTION))
        return alias.version, row.head, versions.by_number(session, row, row.head or 0).state


def test_what_was_forgotten_after_the_upload_refuses_it() -> None:
    model = duties.new_model(bare_models.generous(0.0))
    staged = uploaded(model)
    assert staged == 2
    forgotten(model, "s1")
    assert conclude(model, staged) == "erasure-regression"
    assert served(model) == (3, 3, "published")
    with database.transaction() as session:
        version = versions.by_number(session, models.by_name(session, model), staged)
        assert (version.state, version.errors[0]["code"]) == ("staged", "erasure-regression")


def test_a_version_that_was_refused_late_is_purged_after_the_proof_window() -> None:
    model = duties.new_model({**bare_models.generous(0.0), "proof_window_seconds": 0.0})
    waits, refused = uploaded(model), uploaded(model)
    forgotten(model, "s1")
    conclude(model, refused)
    with database.transaction() as session:
        row = models.by_name(session, model)
        assert disposal.purge_versions(session, row) == [refused]
        assert versions.by_number(session, row, waits).state == "staged"


def test_what_was_revoked_while_it_waited_is_not_served() -> None:
    model = duties.new_model(bare_models.generous(0.0))
    staged = uploaded(model)
    with database.transaction() as session:
        versions.revoke(session, "test", models.by_name(session, model), staged, "a mistake")
    assert conclude(model, staged) == "version-revoked"
    assert served(model) == (1, 1, "published")
    with database.transaction() as session:
        version = versions.by_number(session, models.by_name(session, model), staged)
        assert version.state == "revoked"


@pytest.mark.parametrize("forgets", [(), (1,)])
def test_erasures_that_wait_to_be_served_count_as_well(forgets: tuple[int, ...]) -> None:
    model = duties.new_model({**bare_models.generous(0.0), "auto_publish": False})
    forgotten(model, "s1")
    assert conclude(model, uploaded(model, *forgets)) == "erasure-regression"
    assert served(model) == (1, 2, "verified")


def test_its_owner_serves_it_and_what_waited_is_complete() -> None:
    model = duties.new_model({**bare_models.generous(0.0), "auto_publish": False})
    request_id = forgotten(model, "s1")
    assert conclude(model, uploaded(model, 1, 2)) is None
    assert served(model) == (1, 3, "verified")
    assert duties.request(request_id).status == "in_progress"
    with database.transaction() as session:
        row = models.by_name(session, model)
        publication.move_alias(session, "test", row, models.PRODUCTION, 3, 1)
    request = duties.request(request_id)
    assert (request.status, request.result_version) == ("completed", 2)
    assert served(model) == (3, 3, "published")
