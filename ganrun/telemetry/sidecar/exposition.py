"""Series of all runs in Prometheus's text format, collected at each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ganrun.telemetry.series import COMMON, SERIES, UP, Series
from ganrun.telemetry.sidecar.runs import EXPIRE_SECONDS, Run, Runs


class Exposition(Collector):
    """Prometheus collector of the runs of a sidecar."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the answer to /metrics."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield a metric family for each series that a run has, and `ganrun_up`."""
        runs, now = self.runs.known(EXPIRE_SECONDS), self.runs.clock()
        for series in SERIES:
            labels = [*COMMON, *series.labels]
            family = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
            metric = family(series.full_name, f"{series.help} [{series.unit}]", labels=labels)
            if series is UP:
                metric.add_sample(series.full_name, {}, 1)
                for run in runs:
                    metric.add_metric([run.name, run.trial], float(run.state(now) == "running"))
            for run in runs:
                self._add(metric, series, run)
            if metric.samples:
                yield metric

    def _add(self, metric: CounterMetricFamily | GaugeMetricFamily, wanted: Series, run: Run) -> None:
        for series, own, value in run.samples:
            if series is wanted:
                metric.add_metric([run.name, run.trial, *own], value)
