"""Random labels for generation: SalUn's anchors without its mask, the paper's own baseline."""

from salun_core import generation_specs, masks, progress
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, salun
from salun_core.unlearn import contract as results


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> results.UnlearnResult:
    """Learn the predictions for other conditions; in place.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    anchored = spec.model_copy(update={"targets": "anchor"})
    return salun.unlearn(generator, data, mask, anchored, report, checkpoints)
