"""``/livez`` and ``/readyz``. Ready depends on PostgreSQL only: a broker that is down must not
refuse requests."""

import fastapi
import sqlalchemy as sa
from sqlalchemy import exc

from api import sessions

router = fastapi.APIRouter(tags=["health"])


@router.get("/livez")
def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
def readyz(session: sessions.Session) -> dict[str, str]:
    """The database answers and has the schema; 503 otherwise."""
    try:
        session.execute(sa.text("SELECT 1 FROM forget_request LIMIT 1"))
    except exc.ProgrammingError as missing:
        detail = "the database has no schema; `make migrate` brings it up to date"
        raise fastapi.HTTPException(503, detail) from missing
    return {"status": "ready"}
