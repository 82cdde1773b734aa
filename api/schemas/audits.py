"""Bodies of a version's audits; the options are :class:`service.audit_options.AuditOptions`."""

import datetime
import uuid
from typing import Any, Literal

from api.schemas import base
from api.schemas import forget_requests as requests
from service import audit_options


class AuditItem(base.Output):
    """How an audit stands; ``stage`` and ``progress`` are its job's."""

    id: uuid.UUID
    model: str
    version: int
    status: Literal["queued", "running", "completed", "failed"]
    stage: str
    job_id: uuid.UUID
    options: audit_options.AuditOptions
    progress: requests.Progress | None
    error: dict[str, Any] | None
    created_at: datetime.datetime
    finished_at: datetime.datetime | None
    links: dict[str, str]


class AuditOut(AuditItem):
    """The same with what was found, once it is completed."""

    result: dict[str, Any] | None


class AuditsOut(base.Output):
    """The audits of a version, newest first, without their results."""

    items: list[AuditItem]
