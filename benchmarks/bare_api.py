"""The barest FastAPI endpoint that makes one row durable: what the framework itself allows.

``uvicorn benchmarks.bare_api:app`` with DATABASE_URL set. It parses the same body as the service
and inserts the same row as pgbench; no key, no checks, one statement, no transaction around it.
"""

import functools
from typing import Any

import fastapi
import pydantic
import sqlalchemy as sa

from client import settings
from service import database

TABLE = (
    "CREATE TABLE bare_insert (id uuid PRIMARY KEY DEFAULT uuidv7(), body text NOT NULL,"
    " created_at timestamptz NOT NULL DEFAULT clock_timestamp())"
)
_TABLE = sa.table("bare_insert", sa.column("id", sa.Uuid()), sa.column("body", sa.Text()))
_INSERT = sa.insert(_TABLE).values(body="x" * 100).returning(_TABLE.c.id)

app = fastapi.FastAPI(title="bare insert")


class Demand(pydantic.BaseModel):
    """The body of a forget request, looked at no further."""

    model: str
    targets: list[dict[str, Any]]


@app.post("/v1/forget-requests", status_code=202)
def insert(demand: Demand) -> dict[str, str]:
    """Insert one row; it is durable when the 202 leaves."""
    with _engine().connect() as connection:
        inserted = connection.scalar(_INSERT)
    return {"id": str(inserted), "model": demand.model}


@functools.cache
def _engine() -> sa.Engine:
    url = settings.load().database_url or ""
    return sa.create_engine(
        database.driver_url(url), pool_size=20, max_overflow=20, isolation_level="AUTOCOMMIT"
    )
