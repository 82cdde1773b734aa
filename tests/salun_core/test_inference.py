import pytest
import torch

from salun_core import confidence, images, inference, preprocessing
from salun_core.unlearn import contract


def test_answers_are_the_largest_logit_and_the_confidence_in_the_true_class(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "BATCH_SIZE", 50)  # the last batch is shorter
    read: list[None] = []
    found = inference.answers(
        trained, data.retain_set, preprocess, after_batch=lambda: read.append(None)
    )
    logits = inference.logits(trained, data.retain_set, preprocess)
    assert torch.equal(found.predicted, logits.argmax(dim=1))
    expected = confidence.logit_scaled_confidence(logits, data.retain_set.labels)
    torch.testing.assert_close(found.scores, expected)
    assert len(read) == inference.count_batches(data.retain_set) == 5
    assert found.scores.requires_grad_().requires_grad  # may take part in later autograd


def test_of_an_empty_set_nothing_is_said(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    empty: images.ImageSet = data.retain_set.subset([])
    found = inference.answers(trained, empty, preprocess)
    assert (found.predicted.shape, found.predicted.dtype) == ((0,), torch.int64)
    assert found.scores.shape == (0,)
    assert inference.logits(trained, empty, preprocess).shape == (0, 0)
