"""``/metrics``: what Prometheus scrapes (text exposition format), with a key that may read."""

from collections.abc import Iterator

import fastapi
import prometheus_client
from fastapi import responses
from prometheus_client import core, registry

from api import auth, sessions
from service import gauges

router = fastapi.APIRouter(tags=["health"])


@router.get("/metrics", response_class=responses.PlainTextResponse)
def metrics(session: sessions.Session, _: auth.Reader) -> responses.Response:
    """Requests, their slack, jobs and what waits, as gauges."""
    found = prometheus_client.CollectorRegistry()
    found.register(_Snapshot(gauges.read(session)))
    text = prometheus_client.generate_latest(found)
    return responses.Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


class _Snapshot(registry.Collector):
    """Gauges that were read already."""

    def __init__(self, read: list[gauges.Gauge]) -> None:
        self._read = read

    def collect(self) -> Iterator[core.Metric]:
        """As the library wants them."""
        for gauge in self._read:
            names = sorted({name for labels, _ in gauge.values for name in labels})
            family = core.GaugeMetricFamily(gauge.name, gauge.description, labels=names)
            for labels, value in gauge.values:
                family.add_metric([labels[name] for name in names], value)
            yield family
