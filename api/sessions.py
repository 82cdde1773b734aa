"""The transaction of one call: it commits before the reply leaves.

``scope="function"`` matters: with FastAPI's default scope a failed commit would be noticed only
after the client has seen success.
"""

from collections.abc import Iterator
from typing import Annotated

import fastapi
from sqlalchemy import orm

from service import database


def get_session() -> Iterator[orm.Session]:
    """A session that commits when the path function returns."""
    with database.transaction() as session:
        yield session


Session = Annotated[orm.Session, fastapi.Depends(get_session, scope="function")]
