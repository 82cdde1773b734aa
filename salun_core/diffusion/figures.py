"""The metrics of a generator's report, from what a judge said of its pictures. Pure."""

from collections.abc import Mapping, Sequence

import torch

from salun_core import errors, extremes, specs
from salun_core.diffusion import answers, frechet
from salun_core.diffusion import judge as judges
from salun_core.diffusion import questions as asking
from salun_core.metrics import accuracy

_Answers = Mapping[str, answers.Answer]


def all_measurements(
    own: _Answers, original: _Answers, judge: judges.Judge, questions: asking.Questions
) -> dict[str, specs.Measurement]:
    """Every metric that the pictures give; the original may be compared with itself.

    Args:
        own: of the net that is measured.
        original: of the net before, for the same questions and noise.
        judge: who looked at both.
        questions: what was asked.

    Returns:
        Recalls are shares of pictures in which the judge sees what must be gone; accuracies are
        means over groups of what is kept.
    """
    asked = questions.by_name()
    hits = {name: answers.recognised(judge, own[name], asked[name]) for name in asked}
    before = {name: answers.recognised(judge, original[name], asked[name]) for name in asked}
    found = _kept(own["kept"], original["kept"], judge, questions)
    if "forgotten" in hits:
        found["unlearning_accuracy"] = gone(hits["forgotten"], questions.forgotten)
        found["recognised_before"] = _seen(before["forgotten"], questions.forgotten)
    if "previous" in hits:
        found["previous_erasures"] = gone(hits["previous"], questions.previous)
    if "paraphrases" in hits:
        recall = share(hits["paraphrases"], target=0.0)
        prompts = _means(_split(hits["paraphrases"], [q.prompt for q in questions.paraphrases]))
        found["paraphrase_recall"] = recall.model_copy(update={"detail": {"per_prompt": prompts}})
    if "compositions" in hits:
        drop, error = accuracy.paired_drop(before["compositions"], hits["compositions"])
        found["composition_shift"] = specs.Measurement(
            value=drop, target=0.0, standard_error=error, n=len(hits["compositions"])
        )
    if answers.UNCONDITIONAL in own and questions.concepts:
        found["unconditional_recall"] = _unasked(own, original, judge, questions.concepts)
    return found


def share(hits: torch.Tensor, target: float | None = None) -> specs.Measurement:
    """The share of true values, with its binomial standard error."""
    value = hits.double().mean().item()
    return specs.Measurement(
        value=value,
        target=target,
        standard_error=accuracy.share_standard_error(value, len(hits)),
        n=len(hits),
    )


def group_accuracies(
    answer: answers.Answer, judge: judges.Judge, asked: Sequence[asking.Question]
) -> dict[str, torch.Tensor]:
    """By term: whether each picture that was asked for with it shows it, bool (n,)."""
    return {
        term: answer.reading.told[rows, judge.terms.index(term)]
        for term, rows in _members(judge, asked).items()
    }


def goes_to(
    own: answers.Answer, original: answers.Answer, judge: judges.Judge
) -> dict[str, dict[str, float]]:
    """What the judge says of the pictures for what is forgotten: share by term, before and after.

    That they left is one thing, where to another: retraining spreads them (arXiv 2604.08111).
    """
    return {
        "before": dict(answers.shares(judge, original)),
        "after": dict(answers.shares(judge, own)),
    }


def _kept(
    own: answers.Answer,
    original: answers.Answer,
    judge: judges.Judge,
    questions: asking.Questions,
) -> dict[str, specs.Measurement]:
    after = group_accuracies(own, judge, questions.kept)
    before = group_accuracies(original, judge, questions.kept)
    if not after:
        raise errors.InvalidDataError("got nothing that is kept, expected at least one question")
    means = {name: _means(groups) for name, groups in (("after", after), ("before", before))}
    return {
        "retain_accuracy": specs.Measurement(
            value=sum(means["after"].values()) / len(after),
            target=sum(means["before"].values()) / len(before),
            standard_error=_error_of_mean(before, after, _members(judge, questions.kept)),
            n=len(questions.kept),
            detail={"per_group": means["after"], "per_group_before": means["before"]},
        ),
        "max_group_drop": _max_drop(before, after),
        "feature_distance": specs.Measurement(
            value=frechet.distance(original.reading.features, own.reading.features),
            n=len(questions.kept),
            detail={
                "features": "the judge's last layer, covariances shrunk; not FID",
                "width": own.reading.features.shape[1],
            },
        ),
    }


def _means(groups: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: hits.double().mean().item() for name, hits in groups.items()}


def _members(judge: judges.Judge, asked: Sequence[asking.Question]) -> dict[str, list[int]]:
    """By term, in order: the questions that ask for it. One may ask for several."""
    found: dict[str, list[int]] = {}
    for row, question in enumerate(asked):
        for term in judge.terms_of(question.subject):
            found.setdefault(term, []).append(row)
    return dict(sorted(found.items()))


def _error_of_mean(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    members: Mapping[str, Sequence[int]],
) -> float:
    """Of the drop of the mean over groups: a picture counts once, in however many groups it is."""
    asked = sorted({row for rows in members.values() for row in rows})
    lost = torch.zeros(asked[-1] + 1, dtype=torch.float64)
    for term, rows in members.items():
        own = before[term].double() - after[term].double()
        lost[rows] += own * len(asked) / (len(members) * len(rows))
    return accuracy.mean_drop(lost[asked])[1]


def _max_drop(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]
) -> specs.Measurement:
    """The drop of the group whose drop exceeds its sampling error most."""
    drops = {name: accuracy.paired_drop(before[name], after[name]) for name in before}
    told = {name: drop for name, (drop, _) in drops.items()}
    every = [
        specs.Measurement(
            value=drop,
            target=0.0,
            standard_error=error,
            n=len(after[name]),
            detail={"group": name, "drops": told},
        )
        for name, (drop, error) in drops.items()
    ]
    return extremes.worst(every, lambda one: one.value)


def gone(hits: torch.Tensor, asked: Sequence[asking.Question]) -> specs.Measurement:
    """1 − recall, of the concept that is seen most; with several all together as ``mean``."""
    by_concept = _split(hits, [question.subject for question in asked])
    detail: dict[str, object] = {"recall_per_concept": _means(by_concept)}
    if len(by_concept) > 1:
        detail["mean"] = 1.0 - hits.double().mean().item()
    every = [
        share(~own, target=1.0).model_copy(update={"detail": {"concept": concept, **detail}})
        for concept, own in by_concept.items()
    ]
    return extremes.worst(every, lambda one: 1.0 - one.value)


def _seen(hits: torch.Tensor, asked: Sequence[asking.Question]) -> specs.Measurement:
    """How much of what must go the judge sees in the original's pictures: of the worst concept.

    What it does not see there it cannot miss afterwards.
    """
    by_concept = _split(hits, [question.subject for question in asked])
    recalls = _means(by_concept)
    worst = min(recalls, key=lambda concept: recalls[concept])
    detail = {"concept": worst, "recall_per_concept": recalls}
    return share(by_concept[worst], target=1.0).model_copy(update={"detail": detail})


def _unasked(
    own: _Answers, original: _Answers, judge: judges.Judge, concepts: Sequence[str]
) -> specs.Measurement:
    """No target: how much of it a retrained net would draw unasked depends on the data."""
    after, before = (
        share(_any_of(found[answers.UNCONDITIONAL], judge, concepts)) for found in (own, original)
    )
    return after.model_copy(update={"detail": {"original": before.value}})


def _any_of(answer: answers.Answer, judge: judges.Judge, concepts: Sequence[str]) -> torch.Tensor:
    told = answer.reading.told
    return torch.stack([told[:, judge.columns(one)].all(dim=1) for one in concepts]).any(dim=0)


def _split(hits: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The hits of each name, in order of its first."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return {name: hits[own] for name, own in rows.items()}
