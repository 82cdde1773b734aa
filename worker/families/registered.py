"""The families that this worker serves, by the name that a model is registered with."""

from collections.abc import Mapping

from worker.families import classifier, contract, generation

_CLASSIFIER = classifier.Classifier()

FAMILIES: Mapping[str, contract.AnyFamily] = {
    "classifier": _CLASSIFIER,
    "class_conditional_diffusion": generation.Generation("class_conditional_diffusion"),
    "text_to_image": generation.Generation("text_to_image"),
}
AUDITED: Mapping[str, contract.AuditedFamily] = {"classifier": _CLASSIFIER}
