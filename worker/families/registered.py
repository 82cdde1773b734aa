"""The families that this worker serves, by the name that a model is registered with."""

from collections.abc import Mapping

from worker.families import classifier, contract

FAMILIES: Mapping[str, contract.Family] = {"classifier": classifier.Classifier()}
