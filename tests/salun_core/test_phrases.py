"""What counts as the same phrase, and as a text that names it."""

import pytest

from salun_core import phrases


@pytest.mark.parametrize(
    ("text", "phrase", "is_named"),
    [
        ("a Twemoji cat", "twemoji", True),
        ("twemojis", "twemoji", False),
        ("in  Van\nGogh style", "van gogh", True),
        ("vangogh", "van gogh", False),
        ("c++ code", "C++", True),
        ("ein Brötchen", "BRÖTCHEN", True),
        ("a.b", "a b", False),
    ],
)
def test_whole_words_in_any_case(text: str, phrase: str, *, is_named: bool) -> None:
    assert phrases.names(text, phrase) is is_named


def test_two_spellings_of_one_phrase_are_equal() -> None:
    assert phrases.normal("  Van   Gogh ") == phrases.normal("van gogh") == "van gogh"


@pytest.mark.parametrize(
    ("text", "belongs"),
    [
        ("a red seven", True),
        ("The digit  SEVEN in red", True),
        ("the digit seven in red ink", False),
        ("seven", False),
    ],
)
def test_to_a_concept_belong_texts_that_contain_it_and_its_prompts(
    text: str, *, belongs: bool
) -> None:
    assert phrases.matcher("red seven", ["the digit seven in red"])(text) is belongs
