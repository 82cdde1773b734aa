"""Train a judge on a model's own training pictures, and ask it about pictures it never saw.

A judge of classes also learns what is none of them: a classifier that must choose is sure of
anything. Nobody has such pictures, so they are made of two training pictures of different classes
(:func:`neither`), as wrongly drawn ones look.
"""

import dataclasses
import math

import torch
from torch.nn import functional

from salun_core import architectures, errors, modes, progress, randomness, specs
from salun_core.diffusion import data, judge
from salun_core.diffusion import terms as vocabularies

_STEPS, _FEWEST_STEPS = 800, 100
_EPOCHS = 30  # where these are fewer steps
_BATCH_SIZE = 64
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 0.02
_LARGEST_SIDE = 64  # pixels: larger pictures are judged at this size
_HELD_OUT_SHARE = 10  # one in so many, where nothing was held out
_MOST_CHECKED = 20_000  # unseen pictures that its figures are taken from
_FEWEST_OF_A_TERM = 50  # of those, if there are so many
_MOST_REFUSED = 2_048  # of them, mixed to pictures of no class
_LEAST_TOLD = 0.7  # balanced accuracy: below it a word does not show in pictures
_STRANGE_SHARE = 4  # of a batch one in so many is shown again as a picture of none of the classes
_ANGLE, _SCALE, _SHIFT, _NOISE = 0.15, 0.1, 0.1, 0.05  # radians; shares of the side; std


def train(
    captioned: data.CaptionedSet,
    holdout: data.CaptionedSet,
    *,
    exclusive: bool,
    seed: int = 0,
    steps: int | None = None,
    report: progress.Progress = progress.silent,
    device: torch.device | str = "cpu",
) -> judge.Judge:
    """A judge of labelled or captioned pictures; the same for the same seed and threads.

    Args:
        captioned: what the model was trained on.
        holdout: never trained on; where it is empty a seeded tenth of ``captioned`` is held out.
        exclusive: whether the texts are class names.
        seed: of initialisation, order and augmentation.
        steps: of 64 pictures; ``None``: 30 epochs, from 100 to 800 steps.
        report: called after every step.
        device: to train on; the judge stays there.

    Raises:
        InvalidDataError: there are fewer than two terms to tell apart.
        CancelledError: from ``report``.
    """
    if not len(holdout):
        captioned, holdout = _split(captioned, seed)
    texts = captioned.texts
    terms = tuple(sorted(set(texts))) if exclusive else vocabularies.common(texts)
    if len(terms) < 2:
        raise errors.InvalidDataError(
            f"got {len(terms)} terms in {len(texts)} texts, expected at least two to tell apart"
        )
    labels = (*terms, judge.NOTHING) if exclusive else terms
    config = _config(labels, captioned.pictures.shape[1:])
    with randomness.seeded(seed, "judge"):
        net = architectures.build(config).to(device)
    trained = judge.Judge(config, net, exclusive)
    if steps is None:
        whole = _EPOCHS * len(captioned) // _BATCH_SIZE
        steps = min(_STEPS, max(_FEWEST_STEPS, whole))
    _fit(trained, captioned, seed, steps, report)
    return _checked(trained, holdout, seed)


def targets(texts: tuple[str, ...], terms: tuple[str, ...], *, exclusive: bool) -> torch.Tensor:
    """Which text stands for which term; bool (N, K)."""
    if not exclusive:
        return vocabularies.present(texts, terms)
    place = {term: column for column, term in enumerate(terms)}
    found = torch.zeros(len(texts), len(terms), dtype=torch.bool)
    rows = [row for row, text in enumerate(texts) if text in place]
    found[rows, [place[texts[row]] for row in rows]] = True
    return found


def neither(pictures: torch.Tensor, others: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Pictures that are of no class, made of two of different classes; (N, C, H, W) each.

    In turn: one laid over the other, the half of one beside the half of the other, and the four
    quarters of one out of their places.
    """
    count, _, height, width = pictures.shape
    signs = torch.randint(0, 2, (count, 1, 1, 1), generator=random).to(pictures.device)
    laid = torch.where(signs == 1, pictures.maximum(others), pictures.minimum(others))
    rows = torch.arange(height, device=pictures.device).view(1, 1, height, 1) < height // 2
    columns = torch.arange(width, device=pictures.device).view(1, 1, 1, width) < width // 2
    halves = torch.where(torch.where(signs == 1, rows, columns), pictures, others)
    moved = torch.roll(pictures, (height // 2, width // 2), dims=(2, 3))
    kinds = torch.arange(count, device=pictures.device).view(-1, 1, 1, 1) % 3
    return torch.where(kinds == 0, laid, torch.where(kinds == 1, halves, moved))


def _split(captioned: data.CaptionedSet, seed: int) -> tuple[data.CaptionedSet, data.CaptionedSet]:
    order = torch.randperm(
        len(captioned), generator=randomness.generator(seed, "judge", "holdout")
    ).tolist()
    count = max(1, len(order) // _HELD_OUT_SHARE)
    return captioned.subset(sorted(order[count:])), captioned.subset(sorted(order[:count]))


def _config(terms: tuple[str, ...], shape: tuple[int, ...]) -> specs.ClassifierConfig:
    channels, *sides = shape
    side = min(max(sides), _LARGEST_SIDE)
    return specs.parse_classifier_config(
        {
            "architecture": "resnet18",
            "num_classes": len(terms),
            "label_names": list(terms),
            "model_args": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
            "pretrained_cfg": {
                "input_size": [channels, side, side],
                "mean": [0.5] * channels,
                "std": [0.5] * channels,
                "interpolation": "bilinear",
                "crop_pct": 1.0,
            },
        }
    )


def _fit(
    made: judge.Judge,
    captioned: data.CaptionedSet,
    seed: int,
    steps: int,
    report: progress.Progress,
) -> None:
    """AdamW with one cycle of the learning rate; rarer terms come more often than their share."""
    prepare, device = judge.Preparation(made.config), modes.device_of(made.net)
    net = made.net.to(memory_format=torch.channels_last).train()  # a third less time on a CPU
    wanted = targets(captioned.texts, made.config.labels, exclusive=made.exclusive)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    shares, random = _shares(wanted), randomness.generator(seed, "judge", "order")
    for step in range(steps):
        index = torch.multinomial(shares, _BATCH_SIZE, replacement=True, generator=random)
        shown = prepare(captioned.pictures[index].to(device))
        asked = wanted[index].float()
        if made.exclusive:
            strange = _strange(shown, asked, random)
            shown = torch.cat([shown, strange])
            asked = torch.cat([asked, _nothing(len(strange), asked.shape[1])])
        pictures = _augmented(shown, random)
        logits = net(pictures.contiguous(memory_format=torch.channels_last))
        loss = _loss(logits, asked.to(device), exclusive=made.exclusive)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        report(step + 1, steps)
    made.net.to(memory_format=torch.contiguous_format).eval()


def _strange(shown: torch.Tensor, wanted: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Pictures of no class, made of every fourth of these and another of a different class."""
    first = torch.arange(0, len(shown), _STRANGE_SHARE)
    different = 1.0 - wanted[first] @ wanted.T
    odds = different.clamp(min=1e-9)  # where a batch is all of one class: of that one
    second = torch.multinomial(odds, 1, generator=random).squeeze(1)
    return neither(shown[first], shown[second], random)


def _nothing(count: int, labels: int) -> torch.Tensor:
    """What is wanted of a picture of no class: the last label, float32 (count, labels)."""
    return functional.one_hot(torch.full((count,), labels - 1), labels).float()


def _shares(wanted: torch.Tensor) -> torch.Tensor:
    """How often a sample is looked at: as its rarest term asks, by the root of its rarity.

    Term by term: ``wanted``, bool (N, K), is too large for numbers where N is a million.
    """
    rarity = wanted.sum(dim=0).clamp(min=1).float().rsqrt()  # (K,)
    shares = rarity.min().expand(len(wanted)).clone()
    for column, rare in enumerate(rarity.tolist()):
        shares = torch.where(wanted[:, column], shares.clamp(min=rare), shares)
    return shares


def _loss(logits: torch.Tensor, wanted: torch.Tensor, *, exclusive: bool) -> torch.Tensor:
    if exclusive:
        return functional.cross_entropy(logits, wanted)
    return functional.binary_cross_entropy_with_logits(logits, wanted)


def _augmented(pictures: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """All grainy, half of them turned, scaled and shifted a little; none mirrored: digits are not.

    Only half: moving a picture by parts of a pixel blurs it, and a style may lie in edges.
    """
    count = len(pictures)
    drawn = torch.rand(count, 4, generator=random) * 2.0 - 1.0
    drawn[::2] = 0.0
    angle, scale = drawn[:, 0] * _ANGLE, 1.0 + drawn[:, 1] * _SCALE
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cosine, -sine, drawn[:, 2] * _SHIFT], 1)]
    rows.append(torch.stack([sine, cosine, drawn[:, 3] * _SHIFT], 1))
    grid = functional.affine_grid(
        torch.stack(rows, 1).to(pictures.device), list(pictures.shape), align_corners=False
    )
    moved = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    noise = torch.randn(moved.shape, generator=random).to(moved.device)
    level = torch.rand(count, 1, 1, 1, generator=random).to(moved.device) * _NOISE
    return moved + noise * level


def _checked(made: judge.Judge, holdout: data.CaptionedSet, seed: int) -> judge.Judge:
    """The judge with its figures; words that do not show in unseen pictures are no terms of it."""
    holdout = _checked_on(made, holdout, seed)
    told = made.told(holdout.pictures[:])
    shown = targets(holdout.texts, made.terms, exclusive=made.exclusive)
    figures = {
        term: _figures(told[:, column], shown[:, column])
        for column, term in enumerate(made.terms)
        if bool(shown[:, column].any())
    }
    if made.exclusive:
        figures[judge.NOTHING] = _refusals(made, holdout, shown, told, seed)
        return dataclasses.replace(made, held_out=figures)
    kept = [term for term in figures if figures[term]["balanced_accuracy"] >= _LEAST_TOLD]
    if len(kept) < 2:
        raise errors.InvalidDataError(
            f"got captions of which the pictures tell {len(kept)} words, expected at least two; "
            "upload a judge"
        )
    unknown = {
        term: figures[term]["balanced_accuracy"] if term in figures else math.nan
        for term in made.terms
        if term not in kept
    }
    known = {term: figures[term] for term in kept}
    fewer = judge.select_terms(made, kept)
    return dataclasses.replace(fewer, held_out=known, unknown=_finite(unknown))


def _checked_on(made: judge.Judge, holdout: data.CaptionedSet, seed: int) -> data.CaptionedSet:
    """All, or of many a seeded choice that has some of every term."""
    if len(holdout) <= _MOST_CHECKED:
        return holdout
    order = torch.randperm(len(holdout), generator=randomness.generator(seed, "judge", "checked"))
    shown = targets(holdout.texts, made.terms, exclusive=made.exclusive)
    taken = set(order[:_MOST_CHECKED].tolist())
    for column in range(shown.shape[1]):
        taken.update(order[shown[order, column]][:_FEWEST_OF_A_TERM].tolist())
    return holdout.subset(sorted(taken))


def _refusals(
    made: judge.Judge,
    holdout: data.CaptionedSet,
    shown: torch.Tensor,
    told: torch.Tensor,
    seed: int,
) -> dict[str, float]:
    """How it told unseen pictures of a class from pictures made of two of them."""
    random = randomness.generator(seed, "judge", "refusals")
    rows = shown.any(dim=1).nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=random)[:_MOST_REFUSED].sort().values]
    pictures = holdout.pictures[rows]
    wanted = torch.cat([shown[rows], torch.zeros(len(rows), 1, dtype=torch.bool)], dim=1)
    strange = _strange(pictures, wanted.float(), random)
    refused = torch.cat([~made.told(strange).any(dim=1), ~told[rows].any(dim=1)])
    made_up = torch.arange(len(refused)) < len(strange)
    return _figures(refused, made_up)


def _finite(values: dict[str, float]) -> dict[str, float]:
    """A word without a held-out picture could not be checked: as good as a coin."""
    return {name: 0.5 if math.isnan(value) else value for name, value in values.items()}


def _figures(told: torch.Tensor, shown: torch.Tensor) -> dict[str, float]:
    recall = told[shown].double().mean().item()
    absent = ~shown
    specificity = (~told[absent]).double().mean().item() if bool(absent.any()) else 1.0
    named = int(told.sum())
    precision = float((told & shown).sum()) / named if named else 0.0
    return {
        "recall": recall,
        "specificity": specificity,
        "precision": precision,
        "balanced_accuracy": (recall + specificity) / 2.0,
        "n": float(shown.sum()),
    }
