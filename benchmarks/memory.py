"""How much memory processes hold, as Linux counts it."""

import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

MEBIBYTE = 1 << 20
_RESET_PEAK = "5"  # what proc(5) says clears VmHWM


def own_peak() -> int:
    """Bytes at this process's high-water mark."""
    if Path("/proc/self/status").exists():
        return _bytes(os.getpid(), "VmHWM")
    # The portable figure also counts what ran before an exec.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Growth:
    """How far the processes' resident memory rises from now on (Linux only).

    The kernel keeps the high-water mark, so that no short peak is missed.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        """Begin: put every process's high-water mark down to what it holds now."""
        self._before = {}
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
            self._before[pid] = _bytes(pid, "VmRSS")

    def peak(self) -> int:
        """Bytes at the high-water marks, together. Raises OSError where a process has ended."""
        return sum(_bytes(pid, "VmHWM") for pid in self._before)

    def growth(self) -> int:
        """The same beyond what they held before."""
        return self.peak() - sum(self._before.values())


def _bytes(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024
