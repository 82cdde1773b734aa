"""The adapter on real digits and a real net, without servers: what the report says of its pool."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from salun_core import images, preprocessing, recipes, specs
from service import acceptance, plans
from tests import material
from worker.families import classifier

FORGET = 60


@pytest.fixture(scope="module")
def sets() -> dict[str, images.ImageSet]:
    """60 of 900 training digits to forget; some 45 unseen ones of a digit in holdout and test."""
    decode = preprocessing.Preprocessing(config().pretrained_cfg)
    splits = {
        split: decode.image_set(
            (row["sample_id"], material.LABELS.index(row["label"]), row["image"]["bytes"])
            for row in material.rows()
            if row["split"] == split
        )
        for split in ("train", "holdout", "test")
    }
    train = splits.pop("train")
    return {
        "forget": train.subset(range(FORGET)),
        "retain": train.subset(range(FORGET, len(train))),
        "previous": train.subset([]),
        **splits,
    }


def config() -> specs.ClassifierConfig:
    return specs.parse_classifier_config(material.CONFIG)


def prepared(sets: Mapping[str, images.ImageSet], folder: Path) -> classifier.PreparedClassifier:
    path = folder / "original.safetensors"
    path.write_bytes(material.trained().data)
    plan = plans.Plan(
        model="digits", dataset="digits", kind="samples", base_version=1, recipes=[],
        forget_ids=sets["forget"].ids, previous_ids=[], withheld_ids=[], excluded_labels=[],
        target_digest="",
    )  # fmt: skip
    return classifier.PreparedClassifier(plan, config(), classifier._load(config(), path), sets)


class Nothing:
    """No checkpoint is kept."""

    def load(self) -> None:
        return None

    def save(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        pass


def silent(step: int, total: int) -> None:
    pass


def carried_out(job: classifier.PreparedClassifier, folder: Path) -> specs.VerificationReport:
    spec = recipes.first("samples", len(job.sets["forget"]), len(job.sets["retain"]), {})
    mask, unlearned = folder / "mask", folder / "unlearned"
    job.compute_mask(spec, mask, silent)
    job.unlearn(spec, mask, unlearned, silent, Nothing())
    return job.verify(spec, mask, unlearned, silent)


def test_without_a_holdout_set_the_default_recipe_passes_cross_fitted(
    sets: dict[str, images.ImageSet], tmp_path: Path
) -> None:
    job = prepared({**sets, "holdout": sets["holdout"].subset([])}, tmp_path)
    report = carried_out(job, tmp_path)
    assert report.evidence["unseen"] == {
        "pool": "test", "cross_fitted": True, "n": 450,
        "n_per_class_min": int(torch.bincount(sets["test"].labels).min()),
    }  # fmt: skip
    folds = report.metrics["forget_holdout_auc"].detail["folds"]
    assert sum(fold["n"] for fold in folds) == FORGET
    assert sum(fold["n_unseen"] for fold in folds) == 450
    verdict = acceptance.judge(report, acceptance.AcceptancePolicy())
    assert verdict.passed, verdict.failures


def test_a_holdout_set_that_is_too_small_is_joined_by_the_test_set(
    sets: dict[str, images.ImageSet], tmp_path: Path
) -> None:
    """45 of a digit are too few. Where whole classes alone are erased nothing is matched."""
    pool = prepared(sets, tmp_path).pool
    assert pool.evidence()["pool"] == "holdout+test"
    assert set(pool.image_set.ids) == {*sets["holdout"].ids, *sets["test"].ids}
    job = prepared(sets, tmp_path)
    of_class = dataclasses.replace(job, plan=dataclasses.replace(job.plan, kind="class"))
    assert of_class.pool.evidence() == {
        "pool": "holdout", "cross_fitted": False, "n": 447, "n_per_class_min": None,
    }  # fmt: skip
