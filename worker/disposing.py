"""The disposal job: what remembers too much, and what was erased, is deleted after its time."""

from service import database, disposal, jobs, tables
from worker import leases


def run(lease: leases.Lease) -> None:
    """Revoke, purge and erase what is due for a model, all in one transaction or not at all.

    The next sweep deletes from the store what nothing needs any more.
    """
    claimed = lease.claimed
    lease.enter("disposing")
    with database.transaction() as session:
        job = jobs.hold(session, claimed, patience=database.A_DAY)
        model = session.get_one(tables.Model, claimed.subject_id)
        disposal.move_left_aliases(session, model)
        disposal.revoke_superseded(session, model)
        disposal.purge_versions(session, model)
        disposal.erase_samples(session, model)
        lease.check()
        jobs.finish(session, job, "succeeded", None)
