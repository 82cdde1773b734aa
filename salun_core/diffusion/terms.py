"""Words of captions that a judge can be asked for."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_FEWEST = 8  # captions: with fewer nothing can be learnt, and less be checked
_MOST = 0.95  # of all captions: a word of nearly all says nothing about a picture


def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, in their order."""
    return tuple(_WORD.findall(text.lower()))


def common(texts: Sequence[str]) -> tuple[str, ...]:
    """Words that occur in enough of the texts and are missing in enough of them, sorted."""
    counts = Counter(word for text in texts for word in set(words(text)))
    return tuple(sorted(word for word, n in counts.items() if _FEWEST <= n <= _MOST * len(texts)))


def present(texts: Iterable[str], terms: Sequence[str]) -> torch.Tensor:
    """Which text has which word; bool (N, K)."""
    place = {term: column for column, term in enumerate(terms)}
    rows = list(texts)
    found = torch.zeros(len(rows), len(terms), dtype=torch.bool)
    for row, text in enumerate(rows):
        for word in words(text):
            if word in place:
                found[row, place[word]] = True
    return found
