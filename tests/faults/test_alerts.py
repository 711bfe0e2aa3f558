"""Alerts of a real run: `make drill`. Three things go wrong, and a webhook hears of each; the run outlasts them all."""

import signal
import time

import pytest

from ganrun.storage import s3_client
from tests.commands import Train
from tests.conftest import config_of
from tests.deploy.stack import (
    Webhook,
    alertmanager,
    answers,
    ask,
    free_port,
    needs,
    prometheus,
    serving,
    sidecar,
    wait_until,
)
from tests.s3 import BUCKET, Server

pytestmark = pytest.mark.drill

MODULE = """
import torch
from ganrun.games.losses import AdversarialLoss, non_saturating
from ganrun.config.registry import LOSSES

seen = 0

def of_generator(fake):
    global seen
    seen += len(fake)
    return non_saturating.generator(fake) * (torch.nan if 3_000 < seen <= 3_012 else 1)

LOSSES["once_nan"] = AdversarialLoss(non_saturating.discriminator, of_generator)
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of this test alone, which it may kill."""
    server = Server(tmp_path / "server")
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_client, "_filesystems", {})
    try:
        yield server
    finally:
        server.kill()


def firing(webhook, name, seconds):
    """Waits until the webhook hears that this alert fires: its labels and annotations."""
    deadline = time.monotonic() + seconds
    while True:
        _, body = webhook.told.get(timeout=deadline - time.monotonic())
        for alert in body["alerts"]:
            if (alert["labels"]["alertname"], alert["status"]) == (name, "firing"):
                print(f"\n{name}: {alert['annotations']['summary']}")
                return alert


@needs("prometheus", "prometheus-alertmanager")
def test_nan_storage_and_sidecar(values, tmp_path, server, monkeypatch):
    """Nobody restarts anything but the server and the sidecar; the run saves and leaves when it is told to."""
    (tmp_path / "once_nan_for_a_drill.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    values["run"] |= {
        "storage": f"s3://{BUCKET}/runs",
        "imports": ["once_nan_for_a_drill"],
        "patience_seconds": 5,
    }
    config = config_of(
        values,
        objective__loss="once_nan",
        train__total_images=10_000_000,
        train__tick_images=300,
        checkpoint__every_images=600,
        telemetry__push_seconds=1,
    )
    yaml = tmp_path / "small.yaml"
    yaml.write_text(config.to_yaml())
    port, webhook = free_port(), Webhook()
    watcher = sidecar(port)
    try:
        with (
            serving(webhook) as hook,
            alertmanager(tmp_path / "alertmanager", hook) as manager,
            prometheus(tmp_path / "prometheus", f"127.0.0.1:{port}", alertmanager=manager) as url,
        ):
            run = Train(yaml, env={"GANRUN_SIDECAR": f"http://127.0.0.1:{port}"})
            assert firing(webhook, "GanrunNonFinite", 300)["labels"]["run"] == "small"
            server.kill()
            assert firing(webhook, "GanrunCheckpointFailing", 120)["labels"]["run"] == "small"
            server.start(ready_seconds=60)
            watcher.kill()
            watcher.wait()
            assert firing(webhook, "GanrunSidecarGone", 240)["labels"]["instance"] == f"127.0.0.1:{port}"
            watcher = sidecar(port)
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), lambda: "no sidecar")
            # Its state is back with the next push, counters from the run's whole life among it.
            counted = 'ganrun_nonfinite_total{run="small"}'
            wait_until(
                lambda: ask(url, "query", query=f"{counted} == 1 and ganrun_up == 1")["result"],
                lambda: ask(url, "query", query=counted),
            )
            run.process.send_signal(signal.SIGINT)
            code, _, error = run.wait()
            assert code == 130, error
            assert "a checkpoint at" in error
    finally:
        watcher.kill()
        watcher.wait()
