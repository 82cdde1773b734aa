"""What a worker's parent may do before it forks: import, and nothing that its children inherit."""

import subprocess
import sys
from pathlib import Path

from client import settings

_SCRIPT = """
import pathlib, sys
import torch

def asked(*_):
    raise SystemExit("the GPU was asked")

for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, asked)
from worker import preloading

# OpenMP's and libtorch's pools begin with the first parallel operation.
names = [task.read_text().strip() for task in pathlib.Path("/proc/self/task").glob("*/comm")]
print(names.count("python"), "sklearn" in sys.modules)
"""


_OFFLINE = """
import sys
from worker import celery_app
assert "huggingface_hub" not in sys.modules
from huggingface_hub import constants
print(constants.HF_HUB_OFFLINE)
"""


def test_a_worker_looks_nothing_up() -> None:
    """Whatever an uploaded folder names: the library reads the setting when it is imported."""
    assert _run(_OFFLINE) == ["True"]


def test_loading_asks_no_gpu_and_starts_no_thread_that_computes() -> None:
    assert _run(_SCRIPT) == ["1", "True"]


def _run(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env=settings.child_environment(
            OPENBLAS_NUM_THREADS="1",
            DATABASE_URL="postgresql://unused",
            BROKER_URL="redis://unused",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
