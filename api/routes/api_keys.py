"""``/v1/api-keys``: made, listed, revoked by an admin."""

import uuid

import fastapi

from api import auth, sessions
from api.schemas import registry
from service import api_keys, tables

router = fastapi.APIRouter(prefix="/v1/api-keys", tags=["API keys"])


@router.post("", status_code=201, response_model=registry.ApiKeyCreated)
def create(
    session: sessions.Session, caller: auth.Admin, body: registry.ApiKeyIn
) -> registry.ApiKeyCreated:
    """Make a key; it is shown this once."""
    row, key = api_keys.create(session, caller.actor, body.name, body.scopes)
    return registry.ApiKeyCreated(id=row.id, name=row.name, scopes=row.scopes, key=key)


@router.get("", response_model=registry.ApiKeysOut)
def listing(session: sessions.Session, _: auth.Admin) -> registry.ApiKeysOut:
    """All keys without their secrets."""
    return registry.ApiKeysOut(items=[_show(row) for row in api_keys.listing(session)])


@router.delete("/{key_id}", response_model=registry.ApiKeyOut)
def revoke(session: sessions.Session, caller: auth.Admin, key_id: uuid.UUID) -> registry.ApiKeyOut:
    """End a key at once."""
    return _show(api_keys.revoke(session, caller.actor, key_id))


def _show(row: tables.ApiKey) -> registry.ApiKeyOut:
    return registry.ApiKeyOut(
        id=row.id,
        name=row.name,
        scopes=row.scopes,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
