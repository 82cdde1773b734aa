"""From what a request names to what a method works on."""

import collections
import itertools
from collections.abc import Sequence

import torch

from salun_core import errors, generation_specs, images, phrases, progress, randomness, specs
from salun_core.diffusion import data as datasets
from salun_core.diffusion import generator as generators
from salun_core.diffusion import sampling as drawing
from salun_core.diffusion.unlearn import contract

TEMPLATES = ("{}", "a {}", "a picture of {}", "an image of a {}")
_DRAWN = 64  # pictures that a model draws for itself where nobody gave any
_MOST_STAND_INS = 4_096  # kept pictures of what is drawn instead

names = phrases.names


def of_class(
    generator: generators.Generator,
    forget_set: datasets.CaptionedSet,
    retain_set: datasets.CaptionedSet,
    *,
    report: progress.Progress = progress.silent,
) -> contract.GenerationData:
    """Whole classes: any class that is kept may stand in for a forgotten one.

    Raises:
        InvalidDataError: nothing is kept, or a kept sample is of a forgotten class.
    """
    kept = sorted(set(retain_set.texts) - set(forget_set.texts))
    if not kept:
        raise errors.InvalidDataError("got no class that is kept, expected at least one")
    forget = datasets.encode(generator, forget_set, report)
    retain = datasets.encode(generator, retain_set, report)
    choices = torch.arange(len(kept)).repeat(len(forget.texts), 1)
    return contract.GenerationData(
        forget, retain, generator.conditions(kept), choices, concepts=forget.texts
    )


def of_samples(
    generator: generators.Generator,
    forget_set: datasets.CaptionedSet,
    retain_set: datasets.CaptionedSet,
    holdout_set: datasets.CaptionedSet,
    *,
    report: progress.Progress = progress.silent,
) -> contract.GenerationData:
    """Single samples: their conditions stay, so each stands in for itself.

    Raises:
        InvalidDataError: a set is empty.
    """
    forget = datasets.encode(generator, forget_set, report)
    retain = datasets.encode(generator, retain_set, report)
    holdout = datasets.encode(generator, holdout_set, report) if len(holdout_set) else None
    choices = torch.arange(len(forget.texts)).unsqueeze(1)
    return contract.GenerationData(forget, retain, forget.table, choices, holdout)


def of_concepts(
    generator: generators.Generator,
    forget_set: datasets.CaptionedSet,
    retain_set: datasets.CaptionedSet,
    concepts: Sequence[specs.ConceptTarget],
    sampling: generation_specs.Sampling,
    *,
    seed: int = 0,
    stand_ins: datasets.CaptionedSet | None = None,
    report: progress.Progress = progress.silent,
) -> contract.GenerationData:
    """Concepts: each text that names one is anchored to the same text with the replacement.

    A concept whose words no sample has is drawn by the model itself, as the paper does for nudity
    (arXiv 2310.12508, section 5): pictures for the concept's prompts are the forget set, those for
    the replaced prompts join the retain set. Stand-ins are those of ``stand_ins`` (kept samples)
    that have an anchor's text; for a concept without any the model draws some. Without
    ``stand_ins`` there are none.

    Raises:
        InvalidDataError: nothing is kept, or replacements lead back to what is forgotten.
        CancelledError: from ``report``.
    """
    missing = [
        concept
        for concept in concepts
        if not any(phrases.names(text, concept.concept) for text in forget_set.texts)
    ]
    if missing:
        asked = [text for concept in missing for text in prompts_of(concept)]
        forget_set = _joined(forget_set, drawn(generator, asked, sampling, seed, "forget", report))
        replaced = [replace(text, concepts) for text in asked]
        kept = drawn(generator, replaced, sampling, seed, "retain", report)
        retain_set = _joined(retain_set, kept)
    forget = datasets.encode(generator, forget_set, report)
    retain = datasets.encode(generator, retain_set, report)
    anchors = [replace(text, concepts) for text in forget.texts]
    found = None
    if stand_ins is not None:
        candidates = _of_texts(stand_ins, anchors, seed)
        lacking = _lacking(set(candidates.texts), forget.texts, anchors, concepts, seed)
        if lacking:
            own = drawn(generator, lacking, sampling, seed, "stand_ins", report)
            candidates = _joined(candidates, own)
        found = _standing_in(datasets.encode(generator, candidates, report), forget, anchors)
    return contract.GenerationData(
        forget,
        retain,
        generator.conditions(anchors),
        torch.arange(len(anchors)).unsqueeze(1),
        stand_ins=found,
        concepts=tuple(concept.concept for concept in concepts),
    )


def _of_texts(
    source: datasets.CaptionedSet, texts: Sequence[str], seed: int
) -> datasets.CaptionedSet:
    """The samples that have one of these texts; of many a seeded choice."""
    wanted = {phrases.normal(text) for text in texts}
    rows = [row for row, text in enumerate(source.texts) if phrases.normal(text) in wanted]
    return source.subset(rows).some(_MOST_STAND_INS, randomness.generator(seed, "stand_ins"))


def _lacking(
    had: set[str],
    texts: Sequence[str],
    anchors: Sequence[str],
    concepts: Sequence[specs.ConceptTarget],
    seed: int,
) -> list[str]:
    """The anchors of those concepts for none of whose texts there is a stand-in, shuffled."""
    known = {phrases.normal(text) for text in had}
    found: list[str] = []
    for concept in concepts:
        belongs = phrases.matcher(concept.concept, concept.prompts)
        own = [anchor for text, anchor in zip(texts, anchors, strict=True) if belongs(text)]
        if known.isdisjoint(phrases.normal(anchor) for anchor in own):
            found += own
    order = torch.randperm(len(found), generator=randomness.generator(seed, "lacking"))
    return [found[place] for place in order.tolist()]


def _standing_in(
    source: datasets.EncodedSet, forget: datasets.EncodedSet, anchors: Sequence[str]
) -> datasets.EncodedSet:
    """Samples with anchors' texts, each under a forgotten text that it stands for.

    Where several forgotten texts have one anchor its samples are theirs in turn.
    """
    rows = collections.defaultdict(list)
    for row, anchor in enumerate(anchors):
        rows[phrases.normal(anchor)].append(row)
    turns = {anchor: itertools.cycle(own) for anchor, own in rows.items()}
    under = [next(turns[phrases.normal(source.texts[row])]) for row in source.rows.tolist()]
    return datasets.EncodedSet(
        source.latents, torch.tensor(under, dtype=torch.int64), forget.table, forget.texts
    )


def drawn(
    generator: generators.Generator,
    prompts: Sequence[str],
    sampling: generation_specs.Sampling,
    seed: int,
    purpose: str,
    report: progress.Progress = progress.silent,
) -> datasets.CaptionedSet:
    """64 pictures that the model draws for these prompts in turn."""
    texts = tuple(prompts[i % len(prompts)] for i in range(_DRAWN))
    pictures = drawing.draw(
        generator,
        generator.conditions(texts),
        sampling,
        randomness.derive_seed(seed, "drawn", purpose),
        report,
    )
    ids = tuple(f"drawn/{purpose}/{i}" for i in range(_DRAWN))
    return datasets.CaptionedSet(images.Pictures(pictures, torch.arange(_DRAWN)), texts, ids)


def prompts_of(concept: specs.ConceptTarget) -> tuple[str, ...]:
    """The caller's own prompts, or templates filled with the concept."""
    return concept.prompts or tuple(template.format(concept.concept) for template in TEMPLATES)


def replace(text: str, concepts: Sequence[specs.ConceptTarget]) -> str:
    """The text with every concept replaced; the longer phrase first where two overlap.

    A text that names none becomes the replacement of the concept whose prompt it is. A replacement
    that names another concept is replaced too.

    Raises:
        InvalidDataError: replacements lead back to what is forgotten.
    """
    changed = text
    if not any(phrases.names(text, one.concept) for one in concepts):
        asked = (one for one in concepts if phrases.matcher(one.concept, one.prompts)(text))
        changed = next(asked, concepts[0]).replacement
    for _ in concepts:
        for concept in sorted(concepts, key=lambda concept: -len(concept.concept)):
            literal = concept.replacement.replace("\\", r"\\")
            changed = phrases.pattern(concept.concept).sub(literal, changed)
        if not any(phrases.names(changed, one.concept) for one in concepts):
            return changed
    raise errors.InvalidDataError(
        f"got replacements of {len(concepts)} concepts that lead back to one of them, expected "
        "what is not forgotten with them"
    )


def _joined(first: datasets.CaptionedSet, second: datasets.CaptionedSet) -> datasets.CaptionedSet:
    pictures = torch.cat([first.pictures[:], second.pictures[:]])
    return datasets.CaptionedSet(
        images.Pictures(pictures, torch.arange(len(pictures))),
        first.texts + second.texts,
        first.ids + second.ids,
    )
