"""The audit trail: no entry is missed, whatever order transactions commit in, and none changes."""

import concurrent.futures
import uuid

import pytest
import sqlalchemy as sa

from service import audit_trail, database, destruction, queue, sweeping, tables, telling

pytestmark = pytest.mark.usefixtures("empty")


def written(*actions: str, object_id: uuid.UUID) -> None:
    with database.transaction() as session:
        for action in actions:
            telling.audit(session, "key:somebody", action, object_id, count=3, share=0.1)


def read(object_id: uuid.UUID, after: int = 0, limit: int = 100) -> list[tables.AuditEntry]:
    with database.transaction() as session:
        return list(
            audit_trail.listing(session, after=after, limit=limit, object_id=str(object_id))
        )


def chain() -> list[tables.AuditEntry]:
    with database.transaction() as session:
        entry = tables.AuditEntry
        statement = sa.select(entry).where(entry.position.is_not(None)).order_by(entry.position)
        return list(session.scalars(statement))


def test_an_entry_committed_late_comes_behind_those_read_before() -> None:
    subject = uuid.uuid4()
    with database.transaction() as session:
        telling.audit(session, "key:slow", "first.begun", subject)
        session.flush()  # it has its id now
        written("second.begun", object_id=subject)
        audit_trail.close()
        seen = read(subject)
        assert [entry.action for entry in seen] == ["second.begun"]
    audit_trail.close()
    behind = read(subject, after=seen[-1].position or 0)
    assert [entry.action for entry in behind] == ["first.begun"]
    assert behind[0].id < seen[0].id


def test_positions_have_no_gap_and_every_digest_covers_the_one_before() -> None:
    subject = uuid.uuid4()
    written("one", "two", "three", object_id=subject)
    assert audit_trail.close() >= 3
    assert audit_trail.close() == 0
    whole = chain()
    assert [entry.position for entry in whole] == list(range(1, len(whole) + 1))
    before = audit_trail.BEGINNING
    for entry in whole:
        assert entry.previous_digest == before
        assert entry.digest == audit_trail.digest_of(audit_trail.told(entry))
        before = entry.digest


def test_a_page_says_by_one_more_that_it_is_not_the_last() -> None:
    subject = uuid.uuid4()
    written(*"abc", object_id=subject)
    audit_trail.close()
    assert [len(read(subject, limit=limit)) for limit in (1, 2, 3)] == [2, 3, 3]


def test_what_a_digest_is_made_of_stays_as_it_is_documented() -> None:
    said = {"position": 1, "detail": {"b": 2, "a": "ä"}}
    # printf '%s' '{"detail":{"a":"\u00e4","b":2},"position":1}' | sha256sum
    assert audit_trail.digest_of(said) == (
        "ec3d2f06e25342b38ed22f8e1f5a4e7739a1883b660ffe1f5f2a596045bf8d78"
    )


def test_who_chain_at_once_give_every_position_once() -> None:
    subject = uuid.uuid4()
    written(*("step" for _ in range(40)), object_id=subject)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        chained = [pool.submit(audit_trail.close) for _ in range(4)]
        assert sum(one.result() for one in chained) == 40
    whole = chain()
    assert [entry.position for entry in whole] == list(range(1, len(whole) + 1))
    assert len({entry.previous_digest for entry in whole}) == len(whole)


def test_a_sweep_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose disk refuses to delete."""
    monkeypatch.setattr(queue, "backlog", lambda _: 0)
    monkeypatch.setattr(queue, "relay", lambda: 0)

    def broken(_: object) -> int:
        raise OSError("read-only file system")

    monkeypatch.setattr(destruction, "destroy", broken)
    subject = uuid.uuid4()
    written("done", object_id=subject)
    with pytest.raises(OSError, match="read-only"):
        sweeping.sweep()
    assert [entry.action for entry in read(subject)] == ["done"]
