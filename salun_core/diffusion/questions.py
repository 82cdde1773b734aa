"""What an unlearned generator is asked, and what a judge looks for in its answers.

All drawn by a seed from the captions or class names; the same questions go to every net.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

import torch

from salun_core import errors, phrases, randomness, specs
from salun_core.diffusion import judge as judges
from salun_core.diffusion import tasks
from salun_core.diffusion import terms as vocabularies

_PARAPHRASES = (
    "{}", "a picture of {}", "an image in {} style", "show me {}", "{} picture", "the {}",
    "some {}s", "something like {}",
)  # fmt: skip
_KEPT_SHARE = 8  # times ``images``: pictures of kept captions, over all terms
_COMPOSED = 8  # kept terms that a concept is combined with
_Belongs = Callable[[str], bool]  # whether a text does


@dataclasses.dataclass(frozen=True)
class Question:
    """One picture that is asked for.

    Attributes:
        prompt: what the model is told.
        subject: what the judge looks for.
    """

    prompt: str
    subject: str


@dataclasses.dataclass(frozen=True)
class Questions:
    """One entry for every picture to be drawn.

    Attributes:
        forgotten: for what must be gone.
        kept: for what must stay; a subject's terms are the groups that it counts in.
        paraphrases: for what must be gone, in other words and in new company.
        compositions: for kept things that share a term with what is gone.
        previous: for what earlier jobs erased.
        unconditional: how many pictures are drawn without being asked for anything.
    """

    forgotten: tuple[Question, ...]
    kept: tuple[Question, ...]
    paraphrases: tuple[Question, ...] = ()
    compositions: tuple[Question, ...] = ()
    previous: tuple[Question, ...] = ()
    unconditional: int = 0

    @property
    def concepts(self) -> tuple[str, ...]:
        """What must be gone, each once."""
        return tuple(dict.fromkeys(question.subject for question in self.forgotten))

    def by_name(self) -> dict[str, tuple[Question, ...]]:
        """Every list that has a question."""
        found = {
            "forgotten": self.forgotten,
            "kept": self.kept,
            "paraphrases": self.paraphrases,
            "compositions": self.compositions,
            "previous": self.previous,
        }
        return {name: asked for name, asked in found.items() if asked}


def of_class(
    forgotten: Sequence[str], kept: Sequence[str], images: int, previous: Sequence[str] = ()
) -> Questions:
    """Every class by its name, so many pictures each.

    Args:
        forgotten: names of the classes that this job erases.
        kept: names of the classes that stay.
        images: of every class.
        previous: names of the classes that earlier jobs erased.

    Raises:
        InvalidDataError: nothing is forgotten or kept, or a class is both.
    """
    if not forgotten or not kept or set(kept) & {*forgotten, *previous}:
        raise errors.InvalidDataError(
            f"got {len(forgotten)} forgotten and {len(kept)} kept classes, expected some of each "
            "and none on both sides"
        )
    return Questions(
        _dealt(_themselves(forgotten), images * len(forgotten)),
        _dealt(_themselves(kept), images * len(kept)),
        previous=_previous(previous, images),
        unconditional=2 * images,
    )


def of_samples(
    judge: judges.Judge, kept: Sequence[str], images: int, seed: int, previous: Sequence[str] = ()
) -> Questions:
    """Samples leave conditions as they were: only what is kept is asked for.

    Args:
        judge: who will look.
        kept: texts of the retain set.
        images: of every class; for captions eight times as many in all.
        seed: of the choice among captions.
        previous: classes or concepts that earlier jobs erased.

    Raises:
        InvalidDataError: the judge knows no word of any text.
    """
    if judge.exclusive:
        names = sorted(set(kept) - set(previous))
        asked = _dealt(_themselves(names), images * len(names))
    else:
        asked = _kept(judge, kept, _any_of([], previous), _KEPT_SHARE * images, seed)
    return Questions((), asked, previous=_previous(previous, images))


def of_concepts(
    judge: judges.Judge,
    captions: Sequence[str],
    kept: Sequence[str],
    concepts: Sequence[specs.ConceptTarget],
    images: int,
    seed: int,
    previous: Sequence[str] = (),
) -> Questions:
    """Concepts of captions, asked for as the training captions do, and otherwise.

    Args:
        judge: who will look; it must know a word of every concept.
        captions: texts of the training samples that belong to a concept; may be empty.
        kept: texts of the retain set.
        concepts: what must be gone.
        images: for every concept of forgotten prompts, and of paraphrases; kept captions get
            eight times as many in all, their compositions with a forgotten neighbour twice.
        seed: of the choice among captions.
        previous: concepts that earlier jobs erased.

    Raises:
        InvalidDataError: the judge knows no word of a concept, or of anything that is kept.
    """
    for concept in concepts:
        judge.terms_of(concept.concept)
    forgotten: list[Question] = []
    paraphrases: list[Question] = []
    for concept in concepts:
        own = sorted(filter(phrases.matcher(concept.concept, concept.prompts), {*captions}))
        prompts = [*concept.prompts, *(_shuffled(own, seed) or tasks.prompts_of(concept))]
        unique = dict.fromkeys(prompts)
        forgotten += _dealt([Question(text, concept.concept) for text in unique], images)
        paraphrases += _dealt(_other_words(judge, concept.concept, own, seed), images)
    gone = _any_of(concepts, previous)
    return Questions(
        tuple(forgotten),
        _kept(judge, kept, gone, _KEPT_SHARE * images, seed),
        tuple(paraphrases),
        _neighbours(judge, captions, kept, gone, 2 * images, seed),
        _previous(previous, images),
        2 * images,
    )


def of_erased(previous: Sequence[str], images: int) -> Questions:
    """For classes or concepts that earlier jobs erased, so many pictures each, and nothing else."""
    return Questions((), (), previous=_previous(previous, images))


def _themselves(names: Iterable[str]) -> list[Question]:
    return [Question(name, name) for name in names]


def _previous(previous: Sequence[str], images: int) -> tuple[Question, ...]:
    return _dealt(_themselves(previous), images * len(previous))


def _dealt(options: Sequence[Question], count: int) -> tuple[Question, ...]:
    """So many questions, the options in turn."""
    return tuple(itertools.islice(itertools.cycle(options), count)) if options else ()


def _shuffled(texts: Iterable[str], seed: int) -> list[str]:
    unique = sorted(set(texts))
    order = torch.randperm(len(unique), generator=randomness.generator(seed, "questions"))
    return [unique[place] for place in order.tolist()]


def _kept(
    judge: judges.Judge, texts: Sequence[str], gone: _Belongs, count: int, seed: int
) -> tuple[Question, ...]:
    """Captions of nothing gone, dealt so that every term comes about as often."""
    known = [text for text in _shuffled(texts, seed) if judge.knows(text) and not gone(text)]
    if not known:
        raise errors.InvalidDataError(
            f"got {len(texts)} kept captions of which the judge knows no word, expected some; "
            "upload a judge that recognises what is kept"
        )
    waiting: dict[str, list[str]] = {}
    for text in known:
        for term in judge.terms_of(text):
            waiting.setdefault(term, []).append(text)
    rounds = itertools.cycle(sorted(waiting))
    turns = {term: itertools.cycle(waiting[term]) for term in waiting}
    return tuple(Question(text, text) for text in (next(turns[next(rounds)]) for _ in range(count)))


def _any_of(concepts: Sequence[specs.ConceptTarget], named: Sequence[str]) -> _Belongs:
    """Whether a text belongs to one of the concepts, or contains one of the phrases."""
    matchers = [phrases.matcher(concept.concept, concept.prompts) for concept in concepts]
    matchers += map(phrases.matcher, named)
    return lambda text: any(belongs(text) for belongs in matchers)


def _other_words(
    judge: judges.Judge, concept: str, captions: Sequence[str], seed: int
) -> list[Question]:
    """Templates, upper case, another order, and the concept with terms that it came with."""
    words = concept.split()
    prompts = [template.format(concept) for template in _PARAPHRASES]
    prompts += [concept.upper(), *([" ".join(reversed(words))] if len(words) > 1 else [])]
    own = set(vocabularies.words(concept))
    beside = {
        term
        for text in captions
        if judge.knows(text)
        for term in judge.terms_of(text)
        if term not in own
    }
    for term in _shuffled(beside, seed)[:_COMPOSED]:
        prompts += [f"{term} {concept}", f"a {concept} {term}"]
    return [Question(prompt, concept) for prompt in prompts]


def _neighbours(
    judge: judges.Judge,
    captions: Sequence[str],
    kept: Sequence[str],
    gone: _Belongs,
    count: int,
    seed: int,
) -> tuple[Question, ...]:
    """Kept captions of two terms or more, one of which also came with what is gone."""
    shared = {term for text in captions if judge.knows(text) for term in judge.terms_of(text)}
    found = []
    for text in _shuffled(kept, seed):
        if gone(text) or not judge.knows(text):
            continue
        terms = judge.terms_of(text)
        if len(terms) > 1 and shared.intersection(terms):
            found.append(Question(text, text))
    return _dealt(found, count)
