"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write through to the disk beside the place, then move there. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
