"""Phrases in texts: whole words, in any case, however they are spaced."""

import re
from collections.abc import Callable, Sequence


def pattern(phrase: str) -> re.Pattern[str]:
    """What finds the phrase in a text."""
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def names(text: str, phrase: str) -> bool:
    """Whether the text contains the phrase."""
    return pattern(phrase).search(text) is not None


def matcher(phrase: str, prompts: Sequence[str] = ()) -> Callable[[str], bool]:
    """What says whether a text belongs to a concept: it contains its phrase, or is a prompt of it.

    Training, verification and the service's ledger all go by it.
    """
    found, asked = pattern(phrase), {normal(prompt) for prompt in prompts}
    return lambda text: found.search(text) is not None or normal(text) in asked


def normal(phrase: str) -> str:
    """Lower case with single spaces: two phrases that name the same are equal."""
    return " ".join(phrase.lower().split())
