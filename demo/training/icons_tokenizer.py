"""A CLIP tokenizer with a vocabulary of its own: the captions' words, and every byte beside them.

Words of the captions are one token each; any other text is spelt in bytes and common pieces, so no
prompt is refused (byte-level BPE, as CLIP's: Radford et al. 2021, arXiv 2103.00020).
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import tokenizers
import transformers

LENGTH = 24  # tokens, with the start and the end
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORD_END = "</w>"


def train(texts: Iterable[str]) -> transformers.CLIPTokenizer:
    """A tokenizer of the texts."""
    merges = _merges(texts)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + _WORD_END for letter in alphabet)]
    pieces += ["".join(pair) for pair in merges]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *SPECIAL])}
    return transformers.CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=LENGTH,
        padding_side="right",
    )


def save(tokenizer: transformers.CLIPTokenizer, folder: Path) -> None:
    """The tokenizer's folder, with the vocabulary and merges that older readers look for."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))


def _merges(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs to join, in order, until every word of the texts is one piece."""
    words = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix=_WORD_END))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix=_WORD_END, show_progress=False
    )
    words.train_from_iterator(sorted(texts), trainer)
    with tempfile.TemporaryDirectory() as folder:
        words.save(str(Path(folder) / "words.json"))
        stored = json.loads((Path(folder) / "words.json").read_text())
    return [tuple(pair) for pair in stored["model"]["merges"]]
