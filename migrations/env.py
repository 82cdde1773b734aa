"""Alembic's entry: run the revisions on the service's own engine, one runner at a time."""

import sqlalchemy as sa
from alembic import context

from service import database, tables

_LOCK = 5_317_008  # any constant: two runners that start together take turns

with database.engine().connect() as connection:
    connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
    connection.commit()
    context.configure(
        connection=connection, target_metadata=tables.Base.metadata, compare_server_default=False
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
    connection.commit()
