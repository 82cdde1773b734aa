"""The judge of a generator's pictures: uploaded with the version, kept from before, or trained."""

from collections.abc import Callable, Mapping
from typing import Any

from salun_core import architectures, progress, specs
from salun_core.diffusion import data, folders, judge, judge_training
from service import artifacts, database, judges, storage
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
) -> judge.Judge:
    """The judge of a version, where this worker computes.

    Args:
        files: of the version, by path.
        dataset: name of the training set.
        listed: its samples.
        whole: the same with pictures and texts, in the same order.
        exclusive: whether a picture is of one class alone.
        begin: called if one must be trained; gives the progress function.

    Raises:
        InvalidDataError: the samples do not make a judge, or an uploaded one cannot be used.
        CancelledError: from the progress function.
    """
    chosen = _uploaded(files) if artifacts.JUDGE_CONFIG in files else None
    if chosen is None:
        chosen = _of_dataset(dataset, listed, whole, exclusive=exclusive, begin=begin)
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
    *,
    exclusive: bool,
    begin: Callable[[], progress.Progress],
) -> judge.Judge:
    """The one that was kept for the dataset, else one that is trained now and kept."""
    size = "x".join(map(str, whole.pictures.shape[1:]))
    name = f"{'classes' if exclusive else 'terms'}/{size}"
    with database.transaction() as session:
        digest = judges.kept(session, dataset, name)
    if digest is None:
        digest = _trained(dataset, name, listed, whole, exclusive=exclusive, report=begin())
    return judge.from_file(storage.path_of(digest))


def _trained(
    dataset: str,
    name: str,
    listed: samples.Listing,
    whole: data.CaptionedSet,
    *,
    exclusive: bool,
    report: progress.Progress,
) -> str:
    """Train a judge on the training split, held to the others; keep it."""
    rows: dict[bool, list[int]] = {True: [], False: []}
    for row, one in enumerate(listed.samples):
        rows[one.split == "train"].append(row)
    trained = judge_training.train(
        whole.subset(rows[True]),
        whole.subset(rows[False]),
        exclusive=exclusive,
        seed=_SEED,
        report=report,
        device=devices.chosen(),
    )
    with storage.linked({}) as folder:
        path = folder / "judge.safetensors"
        trained.to_file(path)
        stored = storage.put_file(path)
    with database.transaction() as session:
        judges.keep(session, dataset, name, stored, _detail(trained))
    return stored.digest


def _detail(trained: judge.Judge) -> dict[str, Any]:
    return {
        "held_out": {term: dict(figures) for term, figures in trained.held_out.items()},
        "unreliable": trained.unreliable(),
        "unknown": dict(trained.unknown),
    }
