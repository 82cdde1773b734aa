"""Do the tensors of an unlearning run on a diffusion model come to what arithmetic says?

``docs/operations.md`` counts bytes per parameter for a model too large for this machine. Here the
same run is made on a small net on the CPU, in which its tensors are found and counted while it
goes on. Activations are not among them: between two steps there are none.
"""

import gc
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks import diffusion_step, figures
from salun_core import generation_specs
from salun_core.diffusion import data
from salun_core.diffusion.unlearn import methods

# Bytes a parameter: weights, gradients, moments, what is frozen, the original as proof. On a CPU
# the teacher is float32.
_ALWAYS = 4 + 4 + 8 + 1 + 4
_TEACHER, _AVERAGE = 4, 4
# What is pinned, and whether a frozen teacher is asked.
_RECIPES: Sequence[tuple[str, Mapping[str, Any], bool]] = (
    ("targets anchor", {"targets": "anchor"}, True),
    ("targets spread", {"targets": "spread"}, True),
    ("gradient ascent", {"method": "gradient_ascent"}, False),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    options = figures.parser("benchmarks.diffusion_memory", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    subject = diffusion_step.Subject()
    found = []
    for title, pinned, has_teacher in _RECIPES:
        for weight_average in (0.0, 0.95):
            spec = generation_specs.GenerationSpec.model_validate(
                {"steps": 3, "weight_average": weight_average, **pinned}
            )
            expected = _ALWAYS + _TEACHER * has_teacher + _AVERAGE * bool(weight_average)
            counted = _counted(subject, spec) / subject.weight_count
            name = f"{title}, {'with' if weight_average else 'no'} moving average"
            found += [
                figures.summarise(f"{name}: counted", "bytes a parameter", [counted]),
                figures.summarise(
                    f"{name}: counted / arithmetic", "times", [counted / expected], at_most=1.05
                ),
            ]
    evidence = figures.surroundings()
    evidence["subject"] = f"UNet2DModel, {subject.weight_count:,} weights, float32"
    return figures.conclude(
        figures.console(), "memory of a diffusion job", found, evidence, options
    )


def _counted(subject: diffusion_step.Subject, spec: generation_specs.GenerationSpec) -> int:
    """Bytes of the tensors alive between two steps, those of the data left out."""
    own = _storages(_tensors_of(subject.data.forget) + _tensors_of(subject.data.retain))
    others = _alive().keys() - _storages(list(subject.generator.denoiser.parameters())).keys()
    counts: list[int] = []

    def count(step: int, _: int) -> None:
        if step == spec.steps:
            alive = _alive()
            counts.append(sum(alive[key] for key in alive.keys() - own.keys() - others))

    generator = subject.copied()
    others -= _storages(list(generator.denoiser.parameters())).keys()
    methods.unlearn(generator, subject.data, subject.mask, spec, count)
    unused = sum(p.numel() * p.element_size() for p in subject.generator.denoiser.parameters())
    return counts[0] - unused  # the subject's own net waits beside its copy


def _tensors_of(encoded: data.EncodedSet) -> list[torch.Tensor]:
    return [encoded.latents, encoded.rows, encoded.table]


def _alive() -> dict[int, int]:
    """Bytes of every storage that a tensor holds, by address."""
    gc.collect()
    # By type: `isinstance` asks an object for its class, which lazily loaded modules answer by
    # loading themselves.
    found = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    gradients = [tensor.grad for tensor in found if tensor.is_leaf and tensor.grad is not None]
    return _storages([*found, *gradients])


def _storages(tensors: Sequence[torch.Tensor]) -> dict[int, int]:
    return {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors
    }


if __name__ == "__main__":
    raise SystemExit(main())
