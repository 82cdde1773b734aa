"""Bodies of the audit trail."""

from typing import Any

from api.schemas import base


class AuditEvent(base.Output):
    """Who did what to which object, when; counts and digests, never an identity."""

    position: int
    at: str
    actor: str
    action: str
    object_id: str
    detail: dict[str, Any]
    previous_digest: str
    digest: str


class AuditEventPage(base.Output):
    """Entries, oldest first."""

    items: list[AuditEvent]
    next_cursor: str | None
