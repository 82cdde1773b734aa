"""The audit trail as a reader sees it: fetched page by page, and whether its chain holds."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from client import errors, http

_PAGE = 1000
_BEGINNING = "0" * 64


def entries(api: http.Api, after: int, filters: Mapping[str, str]) -> Iterator[http.Json]:
    """Every entry behind a position, in order."""
    cursor: str | None = str(after)
    while cursor is not None:
        asked = {**filters, "cursor": cursor, "limit": _PAGE}
        page = api.get("/v1/audit-events", params=asked)
        yield from page["items"]
        cursor = page["next_cursor"]


def verified(found: Iterable[Mapping[str, Any]], known: str | None) -> http.Json:
    """How many entries there are and the digest of the last, once the chain is found whole.

    Args:
        found: the whole trail.
        known: a digest that was noted earlier; an entry must have it.

    Raises ClientError, which says where the chain breaks.
    """
    count, digest, met = 0, _BEGINNING, known is None
    for count, entry in enumerate(found, start=1):
        said = {name: value for name, value in entry.items() if name != "digest"}
        if (entry["position"], entry["previous_digest"]) != (count, digest):
            raise errors.ClientError(
                f"the chain breaks at entry {entry['position']}: it does not follow on the one "
                f"before; an entry was put in, left out or changed behind {count - 1}"
            )
        digest = _digest_of(said)
        if digest != entry["digest"]:
            raise errors.ClientError(
                f"the chain breaks at entry {count}: it was changed (its digest is "
                f"{entry['digest'][:16]}…, that of what it says {digest[:16]}…)"
            )
        met = met or digest == known
    if not met:
        raise errors.ClientError(
            f"no entry has the digest {known}: the trail was written anew, or cut off before it"
        )
    return {"entries": count, "digest": digest}


def _digest_of(said: Mapping[str, Any]) -> str:
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
