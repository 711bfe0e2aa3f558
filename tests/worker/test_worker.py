"""What a worker makes of its machine."""

import pytest
import torch

from ganrun.telemetry.messages import Note
from ganrun.training import state
from ganrun.worker import worker
from tests.conftest import config_of
from tests.ranks import StopAt


@pytest.mark.parametrize("has", [True, False])
def test_bf16_is_float32_where_the_device_does_not_compute_in_it_and_the_user_is_told(values, monkeypatch, has):
    seen = []
    for module in (state, worker):
        monkeypatch.setattr(module, "has_bf16", lambda device: has)
    inner = state.TrainingState.__init__

    def init(self, *arguments):
        inner(self, *arguments)
        seen.extend(player_step.bf16 for player_step in self.player_steps)

    monkeypatch.setattr(state.TrainingState, "__init__", init)
    channel = StopAt()
    worker.run_worker(
        config_of(values, train__precision="bf16", train__total_images=12), 0, 1, torch.device("cpu"), channel
    )
    notes = [event.text for event in channel.events if isinstance(event, Note)]
    told = "train.precision: bf16, but this CPU does not compute in it: float32 is used"
    assert (seen, notes) == ([has, has], [] if has else [told])
