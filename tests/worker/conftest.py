"""A data folder of this process's own, for what needs the store and no server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import settings


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that :mod:`service.storage` writes to."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://unused")
    monkeypatch.setenv("BROKER_URL", "redis://unused")
    monkeypatch.setenv("SALUN_DATA_DIR", str(tmp_path))
    settings.load.cache_clear()
    yield tmp_path
    settings.load.cache_clear()
