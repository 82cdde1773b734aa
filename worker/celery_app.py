"""The Celery application of the workers: ``celery -A worker.celery_app worker -P prefork -c 1``.

The parent imports large libraries (``worker.preloading``) and forks, so that a child that takes the
place of a killed one soon works. It computes nothing and asks no GPU: a child forked after its
parent did either hangs. Nothing here may import torch: who asks whether a worker lives comes here
too.
"""

import os

from celery import signals

from service import queue
from worker import shutdown

# What an uploaded folder names is never looked for elsewhere. It is read when the library is first
# imported, and nothing above does.
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # noqa: TID251

app = queue.app()
app.conf.update(
    imports=["worker.tasks"],
    worker_hijack_root_logger=False,
    # Celery kills a child that is not up in 4 s and forks the next: on a busy machine, or a cold
    # disk, loading takes longer, and the worker would never come up.
    worker_proc_alive_timeout=600.0,
)


@signals.worker_shutting_down.connect
def _tell_children(**_: object) -> None:
    """SIGTERM reaches the parent: tell the child to checkpoint and give its job back."""
    shutdown.announce()


@signals.worker_init.connect
def _preload(**_: object) -> None:
    """Import the large libraries once, before the first child is forked."""
    from worker import preloading

    preloading.share()


@signals.worker_process_init.connect
def _warm_up(**_: object) -> None:
    """Load the rest in the child before the first job asks for it."""
    from worker import warming

    warming.load()
