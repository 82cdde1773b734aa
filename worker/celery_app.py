"""The Celery application of the workers: ``celery -A worker.celery_app worker -P prefork -c 1``.

Nothing here may import torch: a child forked after its parent computed hangs, so torch is first
touched in the child (``worker.warming``).
"""

from celery import signals

from service import queue, settings
from worker import shutdown

app = queue.app()
app.conf.update(
    imports=["worker.tasks"],
    worker_hijack_root_logger=False,
    # Celery kills a child that is not up in 4 s and forks the next: on a busy machine, or a cold
    # disk, loading torch takes longer, and the worker would never come up.
    worker_proc_alive_timeout=600.0,
    beat_schedule={
        "sweep": {
            "task": "worker.tasks.sweep",
            "schedule": settings.load().sweep_seconds,
            "options": {"queue": queue.HOUSEKEEPING, "expires": settings.load().sweep_seconds},
        }
    },
)


@signals.worker_shutting_down.connect
def _tell_children(**_: object) -> None:
    """SIGTERM reaches the parent: tell the child to checkpoint and give its job back."""
    shutdown.announce()


@signals.worker_process_init.connect
def _warm_up(**_: object) -> None:
    """Load torch in the child before the first job asks for it."""
    from worker import warming

    warming.load()
