"""``/v1/audit-events``: who did what, for those who must be able to prove it."""

from typing import Annotated

import fastapi

from api import auth
from api.schemas import audit_events as schemas
from api.schemas import base
from service import audit_trail, database

router = fastapi.APIRouter(prefix="/v1/audit-events", tags=["audit events"])
MAX_PAGE = 1000

Filter = Annotated[str | None, fastapi.Query(min_length=1, max_length=128, pattern=base.NO_NUL)]


@router.get("", response_model=schemas.AuditEventPage)
def listing(
    _: auth.Auditor,
    cursor: Annotated[
        int, fastapi.Query(ge=0, lt=2**63, description="go on behind this position")
    ] = 0,
    limit: Annotated[int, fastapi.Query(ge=1, le=MAX_PAGE)] = 100,
    action: Filter = None,
    object_id: Filter = None,
) -> schemas.AuditEventPage:
    """Entries in order, oldest first; ``next_cursor`` goes into ``cursor`` for the next page.

    Who has read all of them goes on later behind the last ``position``: none is ever put in before
    it. ``digest`` is the SHA-256 of the rest of an entry, written as JSON with sorted keys, without
    blanks, and in ASCII; ``previous_digest`` is that of the entry before.
    """
    audit_trail.close()
    with database.transaction() as session:
        found = audit_trail.listing(
            session, after=cursor, limit=limit, action=action, object_id=object_id
        )
        page = [
            schemas.AuditEvent(**audit_trail.told(entry), digest=entry.digest)
            for entry in found[:limit]
        ]
    return schemas.AuditEventPage(
        items=page, next_cursor=str(page[-1].position) if len(found) > limit else None
    )
