"""A reader finds out what was changed in the trail."""

import pytest

from client import audit_trail, errors
from service import audit_trail as serving


def trail(length: int) -> list[dict[str, object]]:
    found, before = [], serving.BEGINNING
    for position in range(1, length + 1):
        said: dict[str, object] = {
            "position": position,
            "at": "2026-11-29T12:00:00.000000Z",
            "actor": "key:somebody",
            "action": "alias.move",
            "object_id": f"o{position}",
            "detail": {"version": position, "share": 0.1, "name": "ä"},
            "previous_digest": before,
        }
        before = serving.digest_of(said)
        found.append({**said, "digest": before})
    return found


def test_a_whole_chain_tells_its_last_digest() -> None:
    whole = trail(4)
    told = audit_trail.verified(whole, known=str(whole[1]["digest"]))
    assert told == {"entries": 4, "digest": whole[3]["digest"]}
    assert audit_trail.verified([], known=None) == {"entries": 0, "digest": serving.BEGINNING}


@pytest.mark.parametrize("position", range(1, 5))
def test_a_changed_entry_is_found(position: int) -> None:
    changed = trail(4)
    changed[position - 1]["actor"] = "key:other"
    with pytest.raises(errors.ClientError, match=f"breaks at entry {position}"):
        audit_trail.verified(changed, known=None)


def test_an_entry_left_out_or_moved_is_found() -> None:
    for wrong in ([0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2]):
        whole = trail(4)
        with pytest.raises(errors.ClientError, match="chain breaks"):
            audit_trail.verified([whole[place] for place in wrong], known=None)


def test_a_trail_written_anew_lacks_the_digest_that_was_kept() -> None:
    whole = trail(4)
    for shorter in (whole[:3], []):
        with pytest.raises(errors.ClientError, match="cut off"):
            audit_trail.verified(shorter, known=str(whole[3]["digest"]))
