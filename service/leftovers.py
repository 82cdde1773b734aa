"""What nobody refers to: files that were sent and never used, what killed processes left.

No row tells of such content, so the store itself is looked through, now and then. It gets a day's
grace: who sends files names them afterwards, and a step's artifact is there before its row.
"""

import hashlib
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

    What was written since the first unfinished job began is left: it may be that job's.
    """
    before = time.time() - settings.load().unused_seconds
    job = tables.Job
    unfinished = sa.select(sa.func.min(job.started_at)).where(job.status.in_(jobs.UNFINISHED))
    with database.transaction() as session:
        began = session.scalar(unfinished)
    if began is not None:
        before = min(before, began.timestamp())
    scratch = storage.clear_scratch(before)
    found = storage.listing(before)
    with database.transaction() as session:
        noted = destruction.condemn(session, destruction.needless(session, found))
        if noted:
            joined = "\n".join(sorted(noted)).encode()
            digest = hashlib.sha256(joined).hexdigest()
            telling.audit(session, "worker", "content.unused", digest, contents=len(noted))
    return Cleared(len(noted), scratch)
