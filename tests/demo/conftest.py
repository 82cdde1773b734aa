"""The clean digits, read once: it takes seconds."""

import pytest

from demo import clean_digits, digits


@pytest.fixture(scope="session")
def clean() -> list[digits.Digit]:
    """Every clean digit."""
    return clean_digits.load()
