"""The judge of a generator's pictures: uploaded with the version, kept from before, or trained.

A judge that is kept has seen no sample that was erased. One that never saw a class or a style
cannot say that it is still gone: where a job needs that, a judge is trained on all samples for this
job alone and is not kept.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from salun_core import architectures, progress, specs
from salun_core.diffusion import data, folders, judge, judge_training, terms
from service import artifacts, database, destruction, judges, storage
from worker import devices, samples

_SEED = 0


def choose(
    files: Mapping[str, artifacts.FileRef],
    dataset: str,
    listed: samples.Listing,
    whole: data.CaptionedSet,
    *,
    exclusive: bool,
    begin: Callable[[], progress.Progress],
    needed: Sequence[str] = (),
) -> judge.Judge:
    """The judge of a version, where this worker computes.

    Args:
        files: of the version, by path.
        dataset: name of the training set.
        listed: its samples.
        whole: the same with pictures and texts, in the same order.
        exclusive: whether a picture is of one class alone.
        begin: called if one must be trained; gives the progress function.
        needed: classes or concepts that it must tell, as far as there are samples of them.

    Raises:
        InvalidDataError: the samples do not make a judge, or an uploaded one cannot be used.
        CancelledError: from the progress function.
    """
    chosen = _uploaded(files) if artifacts.JUDGE_CONFIG in files else None
    if chosen is None:
        chosen = _of_dataset(dataset, listed, whole, needed, exclusive=exclusive, begin=begin)
    chosen.net.to(devices.chosen())
    return chosen


def _uploaded(files: Mapping[str, artifacts.FileRef]) -> judge.Judge:
    path = storage.path_of(files[artifacts.JUDGE_WEIGHTS].digest)
    config = folders.read_json(storage.path_of(files[artifacts.JUDGE_CONFIG].digest))
    return judge.from_classifier(
        config, architectures.load(specs.parse_classifier_config(config), path)
    )


def _of_dataset(
    dataset: str,
    listed: samples.Listing,
    whole: data.CaptionedSet,
    needed: Sequence[str],
    *,
    exclusive: bool,
    begin: Callable[[], progress.Progress],
) -> judge.Judge:
    """The one that was kept for the dataset, else one that is trained now, and perhaps kept."""
    size = "x".join(map(str, whole.pictures.shape[1:]))
    name = f"{'classes' if exclusive else 'terms'}/{size}"
    with database.transaction() as session:
        without = judges.erased(session, dataset)
        digest = judges.kept(session, dataset, name)
    rows = [
        row
        for row, one in enumerate(listed.samples)
        if one.split == "train" and one.sample_id not in without
    ]
    if without and not _tells(whole.subset(rows).texts, needed, exclusive=exclusive):
        every = [row for row, one in enumerate(listed.samples) if one.split == "train"]
        return _trained(listed, whole, every, exclusive=exclusive, report=begin())
    if digest is not None:
        with contextlib.suppress(FileNotFoundError):  # another job erases samples just now
            return judge.from_file(storage.path_of(digest))
    trained = _trained(listed, whole, rows, exclusive=exclusive, report=begin())
    _keep(dataset, name, trained, without)
    return trained


def _tells(texts: Sequence[str], needed: Sequence[str], *, exclusive: bool) -> bool:
    """Whether a judge that learns these texts can know all that is needed."""
    if exclusive:
        return set(needed) <= set(texts)
    known = set(terms.common(texts))
    return all(known.issuperset(terms.words(concept)) for concept in needed)


def _trained(
    listed: samples.Listing,
    whole: data.CaptionedSet,
    rows: Sequence[int],
    *,
    exclusive: bool,
    report: progress.Progress,
) -> judge.Judge:
    """Trained on some samples, held to those that no model was trained on."""
    unseen = [row for row, one in enumerate(listed.samples) if one.split != "train"]
    return judge_training.train(
        whole.subset(rows),
        whole.subset(unseen),
        exclusive=exclusive,
        seed=_SEED,
        report=report,
        device=devices.chosen(),
    )


def _keep(dataset: str, name: str, trained: judge.Judge, without: frozenset[str]) -> None:
    with storage.linked({}) as folder:
        path = folder / "judge.safetensors"
        trained.to_file(path)
        stored = storage.put_file(path, destruction.arriving)
    with database.transaction() as session:
        judges.keep(session, dataset, name, stored, _detail(trained), without)


def _detail(trained: judge.Judge) -> dict[str, Any]:
    return {
        "held_out": {term: dict(figures) for term, figures in trained.held_out.items()},
        "unreliable": trained.unreliable(),
        "unknown": dict(trained.unknown),
    }
