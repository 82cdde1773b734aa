"""A request is withdrawn while its batch is sealed, a job stopped while it publishes: one wins."""

import json

import pytest

from benchmarks import bare_models, racing

pytestmark = pytest.mark.usefixtures("empty")
_TRIES = [40, pytest.param(300, marks=pytest.mark.faults_full)]


@pytest.mark.parametrize("tries", _TRIES)
def test_a_request_is_withdrawn_or_sealed_and_never_both(tries: int) -> None:
    bare_models.dataset("races", 2 * tries)
    bare_models.model("net", "races", bare_models.generous(3600.0))
    found = racing.with_sealing(bare_models.caller(), "net", tries, seed=0)
    assert found.undecided == 0
    assert found.cancelled + found.carried_out == tries
    assert min(found.cancelled, found.carried_out) > 0, "a race that one side always wins is none"


@pytest.mark.parametrize("tries", _TRIES)
def test_a_job_is_stopped_or_published_and_never_both(tries: int) -> None:
    bare_models.dataset("races", 2 * tries)
    bare_models.model("net", "races", bare_models.generous(0.0))
    found = racing.with_publishing(bare_models.caller(), "net", tries, seed=0)
    assert found.undecided == 0
    assert found.cancelled + found.carried_out == tries
    assert min(found.cancelled, found.carried_out) > 0, "a race that one side always wins is none"


def test_the_benchmark_of_races_and_claims_runs_whole(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--tries", "3", "--queued", "50", "--claims", "5", "--pending", "20"]
    assert racing.main(few) == 0
    found = json.loads(capsys.readouterr().out)
    assert [races["undecided"] for races in found["races"]] == [0, 0]
    assert [len(times) for times in found["claims"].values()] == [5, 5]
    job = found["one_job"]
    assert (job["pending"], job["jobs"], job["completed"]) == (20, 1, 20)
