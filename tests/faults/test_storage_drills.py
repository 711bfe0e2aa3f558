"""The object storage goes away while a run trains from it and to it: `make drill`."""

import re
import threading
import time

import pytest

from ganrun.storage import open_storage
from tests.commands import Train
from tests.conftest import config_of
from tests.faults.test_drills import assert_equal
from tests.ranks import latest_tensors, run_ranks
from tests.s3 import BUCKET, Server
from tests.storage.proxy import proxied

pytestmark = pytest.mark.drill
AWAY_SECONDS = 20


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of this test alone, which it may kill."""
    server = Server(tmp_path / "server")
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        server.kill()


def test_storage_killed_in_mid_run_and_during_a_checkpoint(values, tmp_path, data_folder, server, capsys):
    """Nobody restarts anything but the server: the run waits for it, and its weights are the undisturbed run's."""
    data = open_storage(f"s3://{BUCKET}/data")
    for path in sorted(data_folder.iterdir()):
        data.write(path.name, path.read_bytes())
    changes = {"train__total_images": 18_000, "train__tick_images": 1_200, "checkpoint__every_images": 2_400}
    values["data"]["cache_mib"] = 0
    undisturbed = config_of(values, run__name="undisturbed", cluster__workers=2, **changes)
    disturbed = config_of(
        values, run__storage=f"s3://{BUCKET}/runs", data__shards=f"s3://{BUCKET}/data", cluster__workers=2, **changes
    )
    yaml = tmp_path / "small.yaml"
    yaml.write_text(disturbed.to_yaml())
    outages: list[str] = []
    guard = threading.Lock()

    with proxied(server.ports["s3"]) as proxy:

        def kill_at(request: str) -> None:
            """At the first shard of the third epoch or so, and at the last file of the fourth checkpoint."""
            shards = sum(seen.startswith("GET") and ".tar" in seen for seen in proxy.seen)
            manifests = sum(seen.startswith("PUT") and "manifest.json" in seen for seen in proxy.seen)
            with guard:
                due = [
                    name
                    for name, now in (
                        ("mid-run", shards > 60),
                        (
                            "checkpoint",
                            manifests >= 3 and bool(re.match(r"PUT .*/checkpoints/.*manifest\.json", request)),
                        ),
                    )
                    if now and name not in outages
                ]
                if due and server.process is not None and server.process.poll() is None:
                    outages.append(due[0])
                    server.kill()
                    threading.Thread(target=restart).start()

        def restart() -> None:
            time.sleep(AWAY_SECONDS)
            server.start(ready_seconds=60)

        proxy.on_request = kill_at
        command = Train(yaml, env={"AWS_ENDPOINT_URL": proxy.url})
        code, _, error = command.wait()
    assert code == 0, error
    assert outages == ["mid-run", "checkpoint"]
    said = [line for line in error.splitlines() if "does not answer" in line or "answers again" in line]
    with capsys.disabled():
        print("", *said, sep="\n")
    assert 2 <= len(said) <= 8, error
    run_ranks(undisturbed, 2, tmp_path / "meeting")
    assert_equal(latest_tensors(disturbed), latest_tensors(undisturbed))
