"""Concepts on the command line."""

import pytest

from client import errors
from client.commands import requests


def test_every_concept_has_its_replacement() -> None:
    assert requests._concepts(["twemoji", "red"], ["noto", "green"], []) == [
        {"kind": "concept", "concept": "twemoji", "replacement": "noto"},
        {"kind": "concept", "concept": "red", "replacement": "green"},
    ]
    (alone,) = requests._concepts(["twemoji"], ["noto"], ["a twemoji cat"])
    assert alone["prompts"] == ["a twemoji cat"]


@pytest.mark.parametrize(
    ("concepts", "replacements", "prompts"),
    [(["twemoji"], [], []), ([], ["noto"], []), ([], [], ["a"]), (["a", "b"], ["c", "d"], ["a"])],
)
def test_what_does_not_pair_is_told(
    concepts: list[str], replacements: list[str], prompts: list[str]
) -> None:
    with pytest.raises(errors.ClientError, match="got"):
        requests._concepts(concepts, replacements, prompts)
