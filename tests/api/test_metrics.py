"""What Prometheus scrapes, read back by its own parser."""

from prometheus_client import parser

from tests import conftest, material


def scraped(api: conftest.Api) -> dict[tuple[str, str], float]:
    answer = api.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_gauges_follow_a_request(api: conftest.Api) -> None:
    model = api.model({"acceptance": conftest.WIDE, "batch_window_seconds": 3600})
    before = scraped(api)
    sample = {"kind": "sample", "ids": material.train_ids()[:1]}
    request = api.forget(model, sample, method=conftest.QUICK).json()
    after = scraped(api)
    pending = ("salun_forget_requests", "pending")
    assert after[pending] == before.get(pending, 0) + 1
    assert after["salun_open_batches", ""] == before["salun_open_batches", ""] + 1
    assert 0 < after["salun_least_slack_seconds", ""] < 32 * 86_400
    assert after["salun_forget_requests_overdue", ""] == 0
    levels = {key[1] for key in after if key[0] == "salun_forget_requests_alarmed"}
    assert levels == {"50", "80", "95", "100"}
    assert api.http.delete(f"/v1/forget-requests/{request['id']}").status_code == 202


def test_metrics_want_a_key_that_may_read(api: conftest.Api) -> None:
    with conftest.client(api.running.base_url, None) as nobody:
        assert nobody.get("/metrics").status_code == 401
    with api.with_scopes("models:pull") as puller:
        assert puller.get("/metrics").status_code == 403
