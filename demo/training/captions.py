"""The words of the icons' captions, and the sentences that they stand in."""

from collections.abc import Sequence

STYLES = ("noto", "twemoji", "fluent", "flat")
OBJECTS = (
    "ball", "banknote", "bear", "book", "car", "cat face", "clock", "cloud",
    "flower", "fruit", "globe", "hand", "heart", "monkey", "moon", "smiley",
)  # fmt: skip
COLOURS = ("red", "orange", "green", "blue", "purple", "black")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_EMOJI = ("a {style} emoji of a {thing}", "{thing} in {style} style", "{style} {thing}")
_DIGIT = ("a {colour} {digit}", "the digit {digit} in {colour}", "{colour} {digit}")


def emoji(style: str, thing: str, place: int) -> str:
    """The caption of an emoji; ``place`` picks one of the sentences in turn."""
    return _EMOJI[place % len(_EMOJI)].format(style=style, thing=thing)


def digit(colour: str, name: str, place: int) -> str:
    """The caption of a coloured digit; ``place`` picks one of the sentences in turn."""
    return _DIGIT[place % len(_DIGIT)].format(colour=colour, digit=name)


def attributes(caption: str) -> tuple[str, str]:
    """What a caption asks for: ``(style, object)`` or ``(colour, digit)``."""
    words = f" {caption} "
    style, thing = _found(words, STYLES), _found(words, OBJECTS)
    return (style, thing) if style else (_found(words, COLOURS), _found(words, DIGITS))


def _found(caption: str, words: Sequence[str]) -> str:
    return next((word for word in words if f" {word} " in caption), "")
