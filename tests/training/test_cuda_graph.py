"""Captured rounds: the same code path as on a GPU, with recorded operations in place of CUDA graphs."""

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from ganrun.config.registry import LOSSES, OPTIMIZERS
from ganrun.errors import UserError
from ganrun.games.gan import DiscriminatorPlayer
from ganrun.games.losses import AdversarialLoss
from ganrun.slots import Slots
from ganrun.training import cuda_graph
from ganrun.training.cuda_graph import CapturedRounds
from ganrun.training.host_reads import result_is_copied
from ganrun.training.new_state import new_state
from tests.conftest import config_of
from tests.ranks import as_ranks
from tests.replaying import Recording
from tests.training.test_replay import batches_of


class RecordedSegment(Recording):
    """A segment as CudaSegment is one; recording runs the operations, too, which capturing does not."""

    def reset(self):
        self._all.clear()


class Broken(RecordedSegment):
    def __enter__(self):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")


class BreaksOff(RecordedSegment):
    """As CUDA ends a capture at an operation that it does not permit: here at the first optimizer step.

    A capture runs nothing, so what the operations before were to write is no number.
    """

    def __exit__(self, *error):
        super().__exit__(*error)
        with torch.no_grad():
            for *_, results in self._all:
                for each in results:
                    if isinstance(each, torch.Tensor) and each.is_floating_point():
                        each.fill_(torch.nan)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if "fused_adam" in operation.name():
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")
        return super().__torch_dispatch__(operation, types, args, kwargs)


class Wrong(RecordedSegment):
    def replay(self):
        super().replay()
        super().replay()


@pytest.fixture(autouse=True)
def warm_up(monkeypatch):
    monkeypatch.setattr(cuda_graph, "WARM_UP", 2)


def tensors_of(state):
    tensors, _ = state.state_dict()
    return {f"{group}/{name}": tensor for group, part in tensors.items() for name, tensor in part.items()}


def played(config, rounds, slots=None, mode=None, segment=RecordedSegment):
    """Play rounds, captured in a mode or eagerly; return the state, the capture and what was told."""
    slots, told = slots or Slots(config.slots), []
    state = new_state(config, torch.device("cpu"), slots)
    captured = None
    if mode:
        captured = CapturedRounds(state, mode, told.append, segment)
        state.play_round = captured.play
    for number in range(rounds):
        state.round(lambda number=number: [batches_of(config, number)[slot] for slot in slots.owned])
    return state, captured, told


def equal(mine, other):
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.fixture
def config(values):
    values["data"]["slots"] = 2
    return config_of(values, train__total_images=100_000)


def test_captured_rounds_are_the_eager_ones(config):
    state, captured, told = played(config, 8, mode="on")
    equal(tensors_of(state), tensors_of(played(config, 8)[0]))
    (program,) = captured.programs.values()
    assert len(program) == 1  # One worker has nothing to add: one graph.
    assert len(told) == 1
    assert told[0].startswith("train.capture: rounds are captured (")
    assert [player_step.timer.steps // player_step.player.turns for player_step in state.player_steps] == [
        state.images // 12
    ] * 2


def test_each_kind_of_round_is_captured(config, values):
    config = config_of(
        values,
        data__slots=2,
        train__total_images=100_000,
        objective__penalties={"r1": 1.0},
        objective__penalty_every_rounds=2,
    )
    state, captured, told = played(config, 12, mode="on")
    equal(tensors_of(state), tensors_of(played(config, 12)[0]))
    assert len(captured.programs) == len(told) == 2


def as_rank(rank, config, folder):
    torch.set_num_threads(1)
    cuda_graph.WARM_UP = 2
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    state, captured, _ = played(config, 6, Slots(config.slots, rank, 2), mode="on")
    (program,) = captured.programs.values()
    found = tensors_of(state)
    if rank == 0:
        torch.save({"tensors": found, "segments": len(program)}, folder / "found.pt")
    dist.destroy_process_group()


def test_two_workers_add_between_segments(config, tmp_path):
    as_ranks(as_rank, (config, tmp_path), 2)
    found = torch.load(tmp_path / "found.pt")
    equal(found["tensors"], tensors_of(played(config, 6)[0]))
    assert found["segments"] == 4  # Gradients of two players, and the statistics of the norms.


def test_without_memory_the_run_continues_eagerly(config):
    state, captured, told = played(config, 6, mode="auto", segment=Broken)
    equal(tensors_of(state), tensors_of(played(config, 6)[0]))
    assert list(captured.programs.values()) == [None]
    assert told == ["train.capture: rounds stay eager: CUDA out of memory. Tried to allocate 2 GiB."]


def test_a_capture_that_breaks_off_leaves_nothing_behind(config):
    state, _, told = played(config, 6, mode="auto", segment=BreaksOff)
    equal(tensors_of(state), tensors_of(played(config, 6)[0]))
    assert told == ["train.capture: rounds stay eager: CUDA error: operation not permitted when stream is capturing"]


def test_a_game_without_noise_is_captured(config, monkeypatch):
    monkeypatch.setattr(
        "ganrun.games.latent.Latent.draw",
        lambda latent, noise, count, name: torch.ones(count, latent.size, dtype=noise.dtype),
    )
    _, captured, _ = played(config, 5, mode="on")
    assert None not in captured.programs.values()
    assert len(captured.programs) == 1


def told_with_texts(values, reads, monkeypatch):
    """Play rounds with a field of texts, which the discriminator `reads` or not; return what was told."""

    def forward(player, batch, *rest):
        assert not reads or batch["text"][0] == "a"
        return original(player, batch, *rest)

    original, told = DiscriminatorPlayer.forward, []
    monkeypatch.setattr(DiscriminatorPlayer, "forward", forward)
    config = config_of(values, data__slots=1, data__fields={"image": {"kind": "image"}, "text": {"kind": "text"}})
    state = new_state(config, torch.device("cpu"), Slots(1))
    state.play_round = CapturedRounds(state, "auto", told.append, RecordedSegment).play
    (batch,) = batches_of(config, 0)
    for _ in range(4):
        state.round(lambda: [batch | {"text": ["a"] * 12}])
    return told


def test_texts_that_no_round_reads_are_no_hindrance(values, monkeypatch):
    (line,) = told_with_texts(values, False, monkeypatch)
    assert not line.startswith("train.capture: rounds stay eager: data.fields")


def test_rounds_that_read_texts_stay_eager(values, monkeypatch):
    assert told_with_texts(values, True, monkeypatch) == [
        "train.capture: rounds stay eager: data.fields: text is text, which a round reads outside of the device; "
        "take an embedding of it"
    ]


def test_an_old_torch_is_told(config, monkeypatch):
    """By its number: 2.9 is before 2.11, though not in the order of texts."""
    state = new_state(config, torch.device("cpu"), Slots(config.slots))
    captured = CapturedRounds(state, "auto", print, RecordedSegment)
    captured._on_gpu = True
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    assert captured._cannot(None) == "torch 2.9.1+cu128 is older than 2.11: upgrade it"


def test_a_capture_that_computes_something_else_is_not_used(config):
    state, captured, told = played(config, 6, mode="auto", segment=Wrong)
    equal(tensors_of(state), tensors_of(played(config, 6)[0]))
    assert list(captured.programs.values()) == [None]
    assert "it computes something else than the eager one: tensor 0 of the state is off by" in told[0]


def test_on_is_an_error_where_it_cannot_be_had(config):
    with pytest.raises(UserError, match=r"train.capture: on, but the round cannot be captured: CUDA out of memory"):
        played(config, 6, mode="on", segment=Broken)


def test_a_loss_that_reads_back_is_named_with_its_place(config, values, monkeypatch):
    def reading(real, fake):
        return (real - fake).mean() * (1.0 if real.mean().item() > 0 else 2.0)

    monkeypatch.setitem(LOSSES.data, "reading", AdversarialLoss(reading, lambda fake: -fake.mean()))
    config = config_of(values, data__slots=2, objective__loss="reading")
    state, _, told = played(config, 6, mode="auto")
    assert "_local_scalar_dense at " in told[0]
    assert "test_cuda_graph.py:" in told[0]
    equal(tensors_of(state), tensors_of(played(config, 6)[0]))


def test_numbers_that_a_round_copies_from_the_host_are_told_apart_from_its_scalars():
    with FakeTensorMode():  # Tensors on a GPU that is not there.
        mine, host, scalar = torch.empty(3, device="cuda"), torch.empty(3), torch.empty(())
        assert result_is_copied("aten::_to_copy", (host,), mine)
        assert result_is_copied("aten::lift_fresh", (mine,), mine)
        assert not result_is_copied("aten::mul", (mine, scalar), mine)
        assert not result_is_copied("aten::lift_fresh", (host,), host)
        assert not result_is_copied("aten::add", (mine, mine), mine)


def test_an_optimizer_of_ones_own_stays_eager(config, values, monkeypatch):
    monkeypatch.setitem(
        OPTIMIZERS.data,
        "plain",
        lambda parameters, settings: torch.optim.RMSprop(parameters, settings.learning_rate),
    )
    config = config_of(values, data__slots=2, optimizer__generator={"name": "plain"})
    _, captured, told = played(config, 6, mode="auto")
    assert told == [
        "train.capture: rounds stay eager: optimizer.generator.name: plain takes its steps in Python; "
        "take adam, adamw or sgd"
    ]
    assert list(captured.programs.values()) == [None]


def test_on_names_the_optimizer_or_the_operation_that_cannot_be_captured(values, monkeypatch):
    def reading(real, fake):
        return (real - fake).mean() * (1.0 if real.mean().item() > 0 else 2.0)

    def plain(parameters, settings):
        return torch.optim.RMSprop(parameters, settings.learning_rate)

    monkeypatch.setitem(LOSSES.data, "reading", AdversarialLoss(reading, lambda fake: -fake.mean()))
    monkeypatch.setitem(OPTIMIZERS.data, "plain", plain)
    for section, given, reason in (
        ("objective__loss", "reading", r"_local_scalar_dense at .*test_cuda_graph\.py:\d+ reads a number back"),
        ("optimizer__generator", {"name": "plain"}, r"optimizer\.generator\.name: plain takes its steps in Python"),
    ):
        config = config_of(values, data__slots=2, **{section: given})
        with pytest.raises(UserError, match=rf"train\.capture: on, but .*: {reason}.*; or take train\.capture: auto$"):
            played(config, 6, mode="on")


def test_closing_frees_the_graphs(config):
    _, captured, _ = played(config, 5, mode="on")
    (program,) = captured.programs.values()
    ((segment, _),) = program
    captured.close()
    assert segment.names == []
    assert captured.programs == {}
