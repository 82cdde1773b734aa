"""What nobody refers to: files that were sent and never used, what killed processes left.

It gets a day's grace: who sends files names them afterwards.
"""

import datetime
import time
from dataclasses import dataclass

import sqlalchemy as sa

from service import database, destruction, jobs, settings, storage, tables, telling


@dataclass(frozen=True)
class Cleared:
    """How much was found: contents that the next sweep destroys, scratch that is gone."""

    contents: int
    scratch: int


def clear() -> Cleared:
    """Condemn the old contents that nothing refers to, and remove the scratch of the dead.

    Scratch that was written since the first unfinished job began is left: it may be that job's.
    """
    grace = settings.load().unused_seconds
    job = tables.Job
    unfinished = sa.select(sa.func.min(job.started_at)).where(job.status.in_(jobs.UNFINISHED))
    with database.transaction() as session:
        session.execute(sa.select(database.end_if_silent(database.A_DAY)))
        began = session.scalar(unfinished)
        contents = destruction.condemn_unused(session, datetime.timedelta(seconds=grace))
        if contents:
            telling.audit(session, "worker", "content.unused", "store", contents=contents)
    before = time.time() - grace
    if began is not None:
        before = min(before, began.timestamp())
    return Cleared(contents, storage.clear_scratch(before))
