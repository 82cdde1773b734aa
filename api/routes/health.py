"""``/livez`` and ``/readyz``. Ready depends on PostgreSQL only: a broker that is down must not
refuse requests."""

import fastapi
import sqlalchemy as sa

from api import sessions

router = fastapi.APIRouter(tags=["health"])


@router.get("/livez")
def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
def readyz(session: sessions.Session) -> dict[str, str]:
    """The database answers and has the schema; 503 otherwise."""
    session.execute(sa.text("SELECT 1 FROM forget_request LIMIT 1"))
    return {"status": "ready"}
