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


def test_loading_asks_no_gpu_and_starts_no_thread_that_computes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        cwd=Path(__file__).parents[2],
        env=settings.child_environment(OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "True"]
