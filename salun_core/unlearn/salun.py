"""SalUn: change only salient weights, towards what the spec's ``targets`` say.

- ``matched`` (samples): look like unseen data; see :mod:`salun_core.unlearn.targets`.
- ``redistribute`` (a class): spread over the other classes.
- ``random_label``: the paper's recipe (arXiv 2310.12508, equation 5).
"""

import dataclasses

import torch

from salun_core import masked_step, masks, progress, specs
from salun_core.unlearn import contract, joint, line_search, random_label


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Make the net forget; in place, weights outside the mask untouched.

    Raises:
        InvalidDataError: matched targets without a holdout set, or no class to spread to.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    if spec.targets == "random_label":
        return random_label.unlearn(net, config, data, mask, spec, report, checkpoints)
    search = spec.line_search and spec.targets == "matched"
    original = masked_step.copy_state(net) if search else {}
    result = joint.train(net, config, data, mask, spec, report, checkpoints)
    if not search:
        return result
    found = line_search.search(net, original, config, data, mask, spec.seed)
    return dataclasses.replace(result, detail={**result.detail, "line_search": found})
