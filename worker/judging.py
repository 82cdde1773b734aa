"""The judge of a generator's pictures: uploaded with the version, kept from before, or trained."""

import dataclasses
from collections.abc import Callable, Mapping

from salun_core import architectures, progress, weights
from salun_core.diffusion import data, judge
from service import artifacts, database, judges, storage
from worker import samples

_SEED = 0


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A judge, and what a report says of where it comes from."""

    net: judge.Judge
    digest: str
    is_uploaded: bool


def choose(
    files: Mapping[str, artifacts.FileRef],
    dataset: str,
    listed: samples.Listing,
    whole: data.CaptionedSet,
    *,
    exclusive: bool,
    begin: Callable[[], progress.Progress],
) -> Chosen:
    """The judge of a version.

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
    if artifacts.JUDGE_CONFIG in files:
        return _uploaded(files)
    size = "x".join(map(str, whole.pictures.shape[1:]))
    name = f"{'classes' if exclusive else 'terms'}/{size}"
    with database.transaction() as session:
        digest = judges.kept(session, dataset, name)
    if digest is None:
        digest = _trained(dataset, name, listed, whole, exclusive=exclusive, report=begin())
    return Chosen(judge.from_file(storage.path_of(digest)), digest, is_uploaded=False)


def _uploaded(files: Mapping[str, artifacts.FileRef]) -> Chosen:
    content = files[artifacts.JUDGE_WEIGHTS]
    config = artifacts.read_config(files[artifacts.JUDGE_CONFIG].digest)
    net = architectures.load(config, storage.path_of(content.digest))
    return Chosen(judge.from_classifier(config, net), content.digest, is_uploaded=True)


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
    net = judge.train(
        whole.subset(rows[True]),
        whole.subset(rows[False]),
        exclusive=exclusive,
        seed=_SEED,
        report=report,
    )
    with storage.linked({}) as folder:
        path = folder / "judge.safetensors"
        net.to_file(path)
        detail = weights.read_metadata(path)
        stored = storage.put_file(path)
    with database.transaction() as session:
        judges.keep(session, dataset, name, stored, detail)
    return stored.digest
