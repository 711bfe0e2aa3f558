"""Pauses a run where a test wants it, so that it does not end before the test's next step. Use it in `run.imports`.

A paused worker continues when it is told to stop or leave.
"""

import time
from pathlib import Path

from ganrun.config.schema import Config
from ganrun.worker import worker
from ganrun.worker.host import WorkerHost


class HoldingHost(WorkerHost):
    def should_stop(self) -> bool:
        while self.is_rank_0 and self._is_held():
            time.sleep(0.05)
        return super().should_stop()

    def _is_held(self) -> bool:
        hold = hold_of(self.spec)
        held = hold.exists() and self.state.images >= int(hold.read_text())
        return held and not self.channel.stop and self.channel._commands.empty()


def hold_of(config: Config) -> Path:
    """Return the file that pauses a run; it contains the number of images."""
    return Path(config.run.storage) / f"{config.run.name}.hold"


def hold_at(config: Config, images: int) -> None:
    """Pause a run from so many images on, until the file is deleted."""
    hold = hold_of(config)
    hold.parent.mkdir(parents=True, exist_ok=True)
    hold.with_suffix(".new").write_text(str(images))
    hold.with_suffix(".new").replace(hold)


worker.WorkerHost = HoldingHost  # type: ignore[misc]
