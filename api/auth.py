"""Who calls: ``Authorization: Bearer <key>``, and the scope that a route asks for."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import fastapi
from fastapi import security
from sqlalchemy import orm

from api import errors
from service import api_keys, database

_bearer = security.HTTPBearer(auto_error=False, description="an API key: salun_…")
Credentials = Annotated[security.HTTPAuthorizationCredentials | None, fastapi.Depends(_bearer)]


def identify(credentials: Credentials) -> api_keys.Caller:
    """The caller; raises :class:`errors.Unauthenticated`."""
    if credentials is None:  # told without a connection
        raise errors.Unauthenticated
    connection = database.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
    with connection, orm.Session(connection) as session:
        return caller_of(session, credentials)


def caller_of(session: orm.Session, credentials: Credentials) -> api_keys.Caller:
    """:func:`identify` inside a transaction that has more to do."""
    caller = None if credentials is None else api_keys.identify(session, credentials.credentials)
    if caller is None:
        raise errors.Unauthenticated
    return caller


def _with(*scopes: api_keys.Scope) -> Callable[..., Awaitable[api_keys.Caller]]:
    """Who has one of these scopes; who has none is told of the last."""

    # Async, so that looking at a set costs no hop to a thread.
    async def require(
        caller: Annotated[api_keys.Caller, fastapi.Depends(identify)],
    ) -> api_keys.Caller:
        if not any(map(caller.may, scopes)):
            caller.require(scopes[-1])
        return caller

    return require


Submitter = Annotated[api_keys.Caller, fastapi.Depends(_with("requests:submit"))]
Reader = Annotated[api_keys.Caller, fastapi.Depends(_with("requests:read"))]
# Who decides on requests must see them.
ReaderOfRequests = Annotated[
    api_keys.Caller, fastapi.Depends(_with("requests:approve", "requests:read"))
]
Approver = Annotated[api_keys.Caller, fastapi.Depends(_with("requests:approve"))]
Writer = Annotated[api_keys.Caller, fastapi.Depends(_with("models:write"))]
Puller = Annotated[api_keys.Caller, fastapi.Depends(_with("models:pull"))]
# What is registered is read by who pulls and by who registers it.
ReaderOfModels = Annotated[api_keys.Caller, fastapi.Depends(_with("models:write", "models:pull"))]
ReaderOfDeployments = Annotated[
    api_keys.Caller, fastapi.Depends(_with("models:write", "requests:read"))
]
Auditor = Annotated[api_keys.Caller, fastapi.Depends(_with("audit:read"))]
Admin = Annotated[api_keys.Caller, fastapi.Depends(_with("admin"))]
