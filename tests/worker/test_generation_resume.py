"""A generator's unlearning that dies between two checkpoints ends in an undisturbed one's file."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from salun_core import errors, generation_recipes, generation_specs, images, weights
from salun_core import progress as core_progress
from salun_core.diffusion import data, folders, generator, judge
from service import plans
from tests import generators, material
from worker.families import generation

STEPS, DIES_AT = 24, 17  # states are kept every third step
PINNED = {
    "steps": STEPS, "forget_batch_size": 64, "retain_batch_size": 8, "density": 0.2,
    "contrast": 0.0,
}  # fmt: skip


class OnDisk:
    """Checkpoints as the worker writes and reads them, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.saved: list[int] = []

    def load(self) -> Mapping[str, torch.Tensor] | None:
        return weights.read(self._path) if self._path.exists() else None

    def save(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        weights.write(self._path, state, {"step": str(step)})
        self.saved.append(step)


def captioned(label: str | None) -> data.CaptionedSet:
    """Training digits of a class, or of all classes but the seven."""
    rows = [
        row
        for row in material.rows()
        if row["split"] == "train" and (row["label"] == label if label else row["label"] != "seven")
    ][:60]
    pixels = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
    pictures = torch.from_numpy(np.stack(pixels)).unsqueeze(1)
    return data.CaptionedSet(
        images.Pictures(pictures, torch.arange(len(rows))),
        tuple(row["label"] for row in rows),
        tuple(row["sample_id"] for row in rows),
    )


def prepared(folder: Path) -> generation.PreparedGenerator:
    """A job as a worker that has just started prepares it: everything from its files."""
    opened = folders.open_generator(
        folder, "class_conditional_diffusion", material.LABELS, torch.device("cpu")
    )
    plan = plans.Plan(
        model="net", dataset="digits", kind="class", base_version=1, recipes=[PINNED],
        forget_ids=["all"], previous_ids=[], withheld_ids=[], excluded_labels=[], target_digest="",
        family="class_conditional_diffusion",
    )  # fmt: skip
    sets = {"forget": captioned("seven"), "retain": captioned(None)}
    looker = judge.from_classifier(material.CONFIG, torch.nn.Identity())
    return generation.PreparedGenerator(
        plan, opened, folder / opened.weights_file, sets, looker, previous=()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generators.write(generators.class_folder(), tmp_path_factory.mktemp("base"))


def dies(step: int, total: int) -> None:
    """A kill."""
    if total == STEPS and step == DIES_AT:
        raise errors.CancelledError


def unlearned(
    folder: Path, where: Path, checkpoints: OnDisk, report: core_progress.Progress
) -> str:
    """SHA-256 of the weights' file."""
    spec: generation_specs.GenerationSpec = generation_recipes.first("class", PINNED)
    job = prepared(folder)
    if not (where / "mask").exists():  # a finished stage
        job.compute_mask(spec, where / "mask", core_progress.silent)
    job.unlearn(spec, where / "mask", where / "weights", report, checkpoints)
    return hashlib.sha256((where / "weights").read_bytes()).hexdigest()


def test_a_job_that_died_amid_unlearning_ends_in_the_same_bytes(
    folder: Path, tmp_path: Path
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    undisturbed = unlearned(folder, whole, OnDisk(whole / "state"), core_progress.silent)
    with pytest.raises(errors.CancelledError):
        unlearned(folder, torn, OnDisk(torn / "state"), dies)
    assert not (torn / "weights").exists()
    again = OnDisk(torn / "state")
    assert unlearned(folder, torn, again, core_progress.silent) == undisturbed
    assert again.saved == [18, 21]  # it went on after step 15
    other = OnDisk(tmp_path / "other")
    (tmp_path / "other").write_bytes((torn / "state").read_bytes())
    state = dict(weights.read(tmp_path / "other"))
    state["steps"] = torch.tensor(15)  # a state that is taken for an older one shows
    weights.write(tmp_path / "other", state, {})
    assert unlearned(folder, torn, other, core_progress.silent) != undisturbed


def test_of_what_is_kept_no_more_is_encoded_than_the_steps_look_at(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "_FEWEST_KEPT", 1)
    few = {**PINNED, "steps": 2, "forget_batch_size": 3, "retain_batch_size": 5}
    spec: generation_specs.GenerationSpec = generation_recipes.first("class", few)
    encoded: list[tuple[str, ...]] = []
    monkeypatch.setattr(data, "encode", recording(data.encode, encoded))
    masks = []
    for name in ("mask", "again"):
        prepared(folder).compute_mask(spec, tmp_path / name, core_progress.silent)
        masks.append((tmp_path / name).read_bytes())
    forget, retain = encoded[:2]
    assert (len(forget), len(retain)) == (60, 16)
    assert set(retain) <= set(captioned(None).ids)
    assert (encoded[2:], masks[1]) == (encoded[:2], masks[0])


def recording(encode: Any, ids: list[tuple[str, ...]]) -> Any:
    """``encode``, noting the ids of each set."""

    def noted(
        model: generator.Generator, captioned: data.CaptionedSet, *more: Any
    ) -> data.EncodedSet:
        ids.append(captioned.ids)
        found: data.EncodedSet = encode(model, captioned, *more)
        return found

    return noted
