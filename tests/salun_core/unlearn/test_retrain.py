from collections.abc import Callable

import torch

from salun_core import architectures, randomness, specs
from salun_core.unlearn import contract, methods


def test_it_is_a_fresh_net_trained_on_the_retain_set(
    random_net: Callable[[int], torch.nn.Module],
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
) -> None:
    """Whatever the net was before, and whatever is forgotten: a draw by the seed, fine-tuned."""
    spec = specs.UnlearningSpec(
        method="retrain", mask="none", density=1.0, epochs=1, batch_size=32, seed=4
    )
    less = contract.UnlearningData(
        data.forget_set.subset([0]), data.retain_set, data.holdout_set.subset([])
    )
    first, second = random_net(1), random_net(2)
    methods.unlearn(first, config, data, None, spec)
    methods.unlearn(second, config, less, None, spec)
    with randomness.seeded(4, "initialisation"):
        fresh = architectures.build(config)
    methods.unlearn(fresh, config, data, None, spec.model_copy(update={"method": "finetune"}))
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name]), name
        assert torch.equal(tensor, second.state_dict()[name]), name
