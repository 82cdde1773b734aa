import numpy as np
import pytest
import torch

from salun_core import confidence, errors, inference
from salun_core.unlearn import targets


def logits(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)) * 3


scores_of = confidence.logit_scaled_confidence


def answers(outputs: torch.Tensor, labels: torch.Tensor) -> inference.Answers:
    return inference.Answers(outputs.argmax(dim=1), scores_of(outputs, labels))


def test_matched_share_is_the_holdout_quantile_and_the_rest_splits_as_before() -> None:
    """u = (i + ½)/n_y; σ of the u-quantile of holdout confidence goes to the true class."""
    erased, holdout = logits(6, 0), logits(40, 1)
    labels, unseen = torch.tensor([0, 0, 0, 1, 1, 0]), torch.arange(40) % 4
    matched = targets.Matched(erased, labels, scores_of(holdout, unseen), unseen)
    found = matched.distributions(torch.arange(6))
    scores = confidence.logit_scaled_confidence(erased, labels)
    pool = confidence.logit_scaled_confidence(holdout, unseen)
    for row in range(6):
        same = labels == labels[row]
        rank = int((scores[same] < scores[row]).sum())
        u = (rank + 0.5) / int(same.sum())
        wanted = np.quantile(pool[unseen == labels[row]].double().numpy(), u, method="hazen")
        share = 1.0 / (1.0 + np.exp(-wanted))
        assert found[row, labels[row]].item() == pytest.approx(share, abs=1e-5)
        own = torch.softmax(erased[row], dim=0)
        own[labels[row]] = 0.0
        rest = found[row].clone()
        rest[labels[row]] = 0.0
        torch.testing.assert_close(rest, own / own.sum() * (1.0 - share), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6))


def test_loop_closes_by_what_is_missing() -> None:
    """Samples one nat too sure at a net whose holdout set did not move: targets fall by one."""
    erased, holdout = logits(8, 0), logits(40, 1)
    labels, unseen = torch.zeros(8, dtype=torch.int64), torch.arange(40) % 4
    matched = targets.Matched(erased, labels, scores_of(holdout, unseen), unseen)
    before = matched.state()["confidence"].clone()
    pool = confidence.logit_scaled_confidence(holdout, unseen)[unseen == 0]
    ranks = (np.arange(8) + 0.5) / 8
    reached = torch.from_numpy(np.quantile(pool.double().numpy(), ranks, method="hazen")).float()
    now = torch.zeros(8, 4)
    now[:, 0] = reached + 1.0 + torch.log(torch.tensor(3.0))  # s = z_y − log 3 over zeros
    matched.correct(answers(now, labels), answers(holdout, unseen))
    torch.testing.assert_close(matched.state()["confidence"], before - 1.0, atol=1e-4, rtol=1e-4)


def test_cross_fitted_every_fold_is_matched_as_if_it_were_alone() -> None:
    """Before and after the loop was closed: what the other fold holds makes no difference."""
    erased, holdout, now, then = (logits(rows, seed) for rows, seed in ((12, 0), (40, 1)) * 2)
    now, then = now * 0.5, then * 0.5
    labels, unseen = torch.arange(12) // 4, torch.arange(40) % 3
    folds = torch.arange(12) % 2, torch.arange(40) // 3 % 2
    crossed = targets.Matched(erased, labels, scores_of(holdout, unseen), unseen, (), folds)
    for fold in (0, 1):
        own, others = (part == fold for part in folds)
        known = scores_of(holdout[others], unseen[others])
        alone = targets.Matched(erased[own], labels[own], known, unseen[others])
        found = crossed.distributions(own.nonzero().flatten())
        torch.testing.assert_close(found, alone.distributions(torch.arange(6)), rtol=0, atol=0)
    crossed.correct(answers(now, labels), answers(then, unseen))
    for fold in (0, 1):
        own, others = (part == fold for part in folds)
        known = scores_of(holdout[others], unseen[others])
        alone = targets.Matched(erased[own], labels[own], known, unseen[others])
        alone.correct(answers(now[own], labels[own]), answers(then[others], unseen[others]))
        assert torch.equal(crossed.state()["confidence"][own], alone.state()["confidence"])


def test_class_without_unseen_samples_takes_all_of_its_fold() -> None:
    erased, holdout = logits(2, 0), logits(20, 1)
    labels, unseen = torch.tensor([3, 3]), torch.arange(20) % 3
    folds = torch.tensor([0, 1]), torch.arange(20) % 2
    found = targets.Matched(erased, labels, scores_of(holdout, unseen), unseen, (), folds).scores(
        torch.arange(2)
    )
    scores = confidence.logit_scaled_confidence(holdout, unseen)
    for fold in (0, 1):
        wanted = np.quantile(scores[fold::2].double().numpy(), 0.5, method="hazen")
        assert found[fold].item() == pytest.approx(float(wanted), abs=1e-5)


def test_refused_classes_get_nothing() -> None:
    labels = torch.zeros(5, dtype=torch.int64)
    matched = targets.Matched(logits(5, 0), labels, torch.randn(9), torch.arange(9) % 4, (2,))
    assert bool((matched.distributions(torch.arange(5))[:, 2] == 0.0).all())
    spread = targets.Redistributed(logits(5, 0), labels, (0, 2)).distributions(torch.arange(5))
    assert bool((spread[:, [0, 2]] == 0.0).all())
    torch.testing.assert_close(spread.sum(dim=1), torch.ones(5))


def test_redistributed_is_the_nets_own_view_of_the_others() -> None:
    erased = logits(5, 0)
    found = targets.Redistributed(erased, torch.full((5,), 3)).distributions(torch.tensor([4, 1]))
    torch.testing.assert_close(found[:, :3], torch.softmax(erased[[4, 1], :3], dim=1))


def test_what_cannot_be_done_is_refused() -> None:
    labels = torch.zeros(5, dtype=torch.int64)
    with pytest.raises(errors.InvalidDataError, match="holdout"):
        targets.Matched(logits(5, 0), labels, torch.empty(0), labels[:0])
    folds = torch.arange(5) % 2, torch.zeros(9, dtype=torch.int64)
    with pytest.raises(errors.InvalidDataError, match="all fall to one fold"):
        targets.Matched(logits(5, 0), labels, torch.randn(9), torch.arange(9), (), folds)
    with pytest.raises(errors.InvalidDataError, match="no other class"):
        targets.Redistributed(logits(5, 0), labels, (1, 2, 3))
