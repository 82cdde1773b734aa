"""What stops a run whose database has gone silent."""

import threading
import time
import uuid

import pytest

from service import errors, jobs, settings
from worker import leases


def test_a_run_stops_when_its_heartbeat_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a lease after the last one: later somebody else may have the job."""
    over = threading.Event()
    monkeypatch.setattr(jobs, "heartbeat", lambda *_: over.wait(20))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@localhost/none")
    monkeypatch.setenv("BROKER_URL", "redis://localhost")
    monkeypatch.setenv("SALUN_LEASE_SECONDS", "2")
    settings.load.cache_clear()
    claimed = jobs.Claim(uuid.uuid4(), jobs.UNLEARNING, uuid.uuid4(), 1, 1, 3, None)
    try:
        with leases.Lease(claimed) as lease:
            report = lease.enter("unlearning")
            report(1, 10)
            time.sleep(1.1)
            with pytest.raises(errors.LeaseLost):
                report(2, 10)
        assert not over.is_set()  # nobody waited for it to come back
    finally:
        over.set()
        monkeypatch.undo()
        settings.load.cache_clear()
