"""Phrases in texts: whole words, in any case, however they are spaced."""

import re


def pattern(phrase: str) -> re.Pattern[str]:
    """What finds the phrase in a text."""
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def names(text: str, phrase: str) -> bool:
    """Whether the text contains the phrase."""
    return pattern(phrase).search(text) is not None


def normal(phrase: str) -> str:
    """Lower case with single spaces: two phrases that name the same are equal."""
    return " ".join(phrase.lower().split())
