import pytest
import torch
from sklearn import linear_model, metrics, preprocessing

from salun_core import errors
from salun_core.metrics import shortcut

# Three classes that two features tell apart: logits (x, y, 0.5) with a bias of 0.
HEAD = shortcut.Layer(
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), torch.tensor([0.0, 0.0, 0.5])
)
POINTS = torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.2, 0.9], [0.3, 0.1]])


def recall(head: shortcut.Layer, *, rows: bool = False, original: shortcut.Layer = HEAD) -> float:
    """Of class 0: two of the four points are its own, the others go to 1 and 2."""
    labels = torch.zeros(4, dtype=torch.int64)
    return shortcut.restored_recall(POINTS, labels, head, original, rows=rows)


def changed(weight: list[float] | None, bias: float) -> shortcut.Layer:
    """The head with other entries for class 0."""
    weights, biases = HEAD.weight.clone(), torch.tensor([bias, 0.0, 0.5])
    if weight is not None:
        weights[0] = torch.tensor(weight)
    return shortcut.Layer(weights, biases)


def test_cut_bias_is_undone() -> None:
    cut = changed(None, -100.0)
    assert cut.bias is not None
    assert not bool(((POINTS @ cut.weight.T + cut.bias).argmax(dim=1) == 0).any())
    assert recall(cut) == recall(HEAD) == 0.5


def test_row_that_forgot_stays_forgotten_until_it_is_put_back() -> None:
    """Row −x: class 0 has logits −1, −.9, −.2, −.3, below class 2's .5 everywhere."""
    turned = changed([-1.0, 0.0], -100.0)
    assert recall(turned) == 0.0
    assert recall(turned, rows=True) == 0.5


def test_raising_all_others_is_the_same_cut() -> None:
    """softmax(z + c) = softmax(z): b = (0, 100, 100.5) is b = (−100, 0, .5), and so are weights
    whose other rows all gained the same vector.
    """
    raised = shortcut.Layer(HEAD.weight, torch.tensor([0.0, 100.0, 100.5]))
    assert recall(raised) == 0.5
    vector = torch.tensor([5.0, 7.0])
    turned = changed([-1.0, 0.0], 0.0).weight + vector
    assert recall(shortcut.Layer(turned, HEAD.bias), rows=True) == 0.5


def test_head_without_bias_has_none_to_put_back() -> None:
    bare = shortcut.Layer(HEAD.weight, None)
    # Logits (x, y, 0): the last point is now of class 0 too.
    assert recall(bare, original=bare) == 0.75


def test_two_forgotten_classes_are_put_back_together() -> None:
    labels = torch.tensor([0, 0, 1])
    cut = shortcut.Layer(HEAD.weight, torch.tensor([-9.0, -9.0, 0.5]))
    found = shortcut.restored_recall(POINTS[:3], labels, cut, HEAD, rows=False)
    assert found == 1.0


def test_nothing_to_measure() -> None:
    none = torch.empty(0, dtype=torch.int64)
    with pytest.raises(errors.InvalidDataError, match="got 0 samples"):
        shortcut.restored_recall(POINTS[:0], none, HEAD, HEAD, rows=False)
    with pytest.raises(errors.InvalidDataError, match="a class that is kept"):
        shortcut.restored_recall(POINTS[:3], torch.arange(3), HEAD, HEAD, rows=False)


def clouds(distance: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """150 samples of five features, a third of a forgotten class."""
    forgotten = torch.arange(150) % 3 == 0
    features = torch.randn(150, 5, generator=torch.Generator().manual_seed(seed))
    features[forgotten, 0] += distance
    return features, forgotten


def test_probe_finds_what_is_there() -> None:
    """Means d apart with unit variance: the best linear rule is right Φ(d/2) of the time on either
    side: .998 for d = 6, .5 for d = 0.
    """
    far = shortcut.linear_probe(*clouds(6.0, 0), *clouds(6.0, 1))
    assert far.balanced_accuracy > 0.97
    assert far.recall > 0.97
    near = shortcut.linear_probe(*clouds(0.0, 0), *clouds(0.0, 1))
    assert near.balanced_accuracy == pytest.approx(0.5, abs=0.12)


def test_probe_is_sklearns() -> None:
    (features, forgotten), (unseen, unseen_forgotten) = clouds(1.5, 0), clouds(1.5, 1)
    scaler = preprocessing.StandardScaler().fit(features.numpy())
    model = linear_model.LogisticRegression(class_weight="balanced", tol=1e-6).fit(
        scaler.transform(features.numpy()), forgotten.numpy()
    )
    predicted = model.predict(scaler.transform(unseen.numpy()))
    found = shortcut.linear_probe(features, forgotten, unseen, unseen_forgotten)
    truth = unseen_forgotten.numpy()
    wanted = metrics.balanced_accuracy_score(truth, predicted)
    assert found.balanced_accuracy == pytest.approx(wanted, abs=0.01)
    assert found.recall == pytest.approx(metrics.recall_score(truth, predicted), abs=0.03)


def test_probe_needs_both_kinds() -> None:
    features, forgotten = clouds(1.0, 0)
    with pytest.raises(errors.InvalidDataError, match="got 0 of 150"):
        shortcut.linear_probe(features, forgotten, features, torch.zeros(150, dtype=torch.bool))
