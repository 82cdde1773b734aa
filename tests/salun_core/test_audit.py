"""Shadow nets on real digits: a recipe that does nothing is found out, retraining is not."""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch

from salun_core import audit, errors, specs
from salun_core.unlearn import contract, methods

TRAINING = specs.UnlearningSpec(
    method="retrain", mask="none", density=1.0, epochs=6, batch_size=32, learning_rate=0.05
)
# One step of this moves no confidence that anyone could see: it "forgets" nothing.
NOTHING = specs.UnlearningSpec(
    method="finetune", mask="none", density=1.0, epochs=1, batch_size=256, learning_rate=1e-6
)


class Kept:
    """A store in memory that counts."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, torch.Tensor]] = {}

    def __call__(
        self, name: str, compute: Callable[[], Mapping[str, torch.Tensor]]
    ) -> Mapping[str, torch.Tensor]:
        if name not in self.kept:
            self.kept[name] = compute()
        return self.kept[name]


@pytest.fixture(scope="module")
def stores() -> dict[str, Kept]:
    return {"nothing": Kept(), "retrain": Kept()}


@pytest.mark.parametrize(("name", "low", "high"), [("nothing", 0.7, 1.0), ("retrain", 0.3, 0.67)])
def test_recipe_is_told_apart_if_it_leaves_something(
    name: str,
    low: float,
    high: float,
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    stores: dict[str, Kept],
) -> None:
    """Trained samples have confidences far above unseen ones here (a third of the holdout set is
    missed, none of the forget set). Retraining as the recipe gives two draws of the same kind: .5
    but for the spread over three pairs.
    """
    spec = NOTHING if name == "nothing" else TRAINING
    told: list[tuple[int, int]] = []
    found = audit.shadow_audit(
        trained, config, data, spec, TRAINING, 3,
        store=stores[name], report=lambda step, total: told.append((step, total)),
    )  # fmt: skip
    assert low < found["ulira_auc"].value < high
    assert found["ulira_auc"].target == 0.5
    assert found["ulira_auc"].n == len(data.forget_set)
    if name == "nothing":
        assert found["ulira_net_auc"].value > 0.6  # the trained net itself remembers
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    again = audit.shadow_audit(
        trained, config, data, spec, TRAINING, 3, store=stores[name], report=never
    )
    assert again == found


def never(_step: int, _total: int) -> None:
    raise AssertionError("nothing is trained again")


def test_same_arguments_same_bits_under_the_same_names(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    stores: dict[str, Kept],
) -> None:
    """What was trained on has the higher confidences, and another recipe has other names. The
    first pair is computed again, the others are known.
    """
    other = Kept()
    other.kept = dict(list(stores["nothing"].kept.items())[1:])
    audit.shadow_audit(trained, config, data, NOTHING, TRAINING, 3, store=other)
    assert other.kept.keys() == stores["nothing"].kept.keys()
    assert not other.kept.keys() & stores["retrain"].kept.keys()
    for name, tensors in other.kept.items():
        assert torch.equal(tensors["unlearned"], stores["nothing"].kept[name]["unlearned"])
        assert torch.equal(tensors["retrained"], stores["nothing"].kept[name]["retrained"])
        assert tensors["unlearned"].mean() > tensors["retrained"].mean() + 0.5


def test_class_is_unlearnt_and_retrained_without(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    class_data: contract.UnlearningData,
) -> None:
    """Both kinds of nets miss the class, by margins of their own: the attack sees the recipe."""
    net = copy.deepcopy(trained)
    short = specs.UnlearningSpec(targets="redistribute", epochs=1, batch_size=64)
    methods.unlearn(net, config, class_data, None, short.model_copy(update={"mask": "none"}))
    kept = Kept()
    quick = TRAINING.model_copy(update={"epochs": 3})
    found = audit.shadow_audit(net, config, class_data, short, quick, 3, store=kept)
    for tensors in kept.kept.values():
        assert (tensors["retrained"] < 0.0).all()
        assert (tensors["unlearned"] < 0.0).double().mean() > 0.9
    assert 0.0 <= found["ulira_net_auc"].value <= 1.0


def test_bad_requests(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    with pytest.raises(errors.InvalidDataError, match=r"share 0\.0"):
        audit.shadow_audit(trained, config, data, NOTHING, TRAINING, 3, retain_share=0.0)
    with pytest.raises(errors.InvalidDataError, match="training by finetune"):
        audit.shadow_audit(trained, config, data, NOTHING, NOTHING, 3)
    with pytest.raises(errors.InvalidDataError, match="pairs"):
        audit.shadow_audit(trained, config, data, NOTHING, TRAINING, 2)
