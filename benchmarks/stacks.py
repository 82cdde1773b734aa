"""A stack for one benchmark, in a temporary folder."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import rich.console

from client.local import stack


@contextlib.contextmanager
def temporary(
    console: rich.console.Console, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[stack.Running, Path]]:
    """Start a stack with the settings that users get; it and a folder for files are gone after.

    ``environment`` sets others.
    """
    # Below /var/tmp: PostgreSQL's files belong on a disk, and /tmp often is memory.
    with tempfile.TemporaryDirectory(prefix="salun-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with contextlib.ExitStack() as up:
            with console.status("starting a stack"):
                running = up.enter_context(stack.running(folder / "data", environment=environment))
            yield running, folder
