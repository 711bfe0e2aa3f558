"""Captured rounds: a round's operations recorded once as CUDA graphs and replayed, without Python and launches.

On a GPU a round of small networks waits for Python most of its time. A graph of the same operations runs them back to
back. It repeats them on the same memory: `RoundInputs` hold all that varies.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from packaging.version import Version
from torch import Tensor

from ganrun.errors import UserError
from ganrun.training.cuda_segment import CudaSegment, OnStream, Segment
from ganrun.training.host_reads import HostReads, WatchedTexts
from ganrun.training.round_inputs import RoundInputs
from ganrun.training.state import TrainingState

WARM_UP = 11
"""Eager rounds of a kind before it is captured: cuDNN has chosen its algorithms, and memory has settled."""
OLDEST_TORCH = Version("2.11")
ROUNDING = 1e-5
"""Difference of two rounds of the same state that is rounding, relative to the greatest number of a tensor."""


Program = list[tuple[Segment, Tensor | None]]
"""Captured round: segments, each with the tensor that is added over the workers after it, or None."""


class CapturedRounds:
    """Player of rounds that captures each kind of round once it is warm, or leaves it eager where that is faster.

    Args:
        state: the training state; all ranks make one alike.
        mode: `train.capture`. auto: captured if it computes the same and is faster; on: captured, or an error.
        tell: called on each rank with a line for people.
        segment: makes a segment; None: CUDA graphs.
    """

    def __init__(
        self,
        state: TrainingState,
        mode: Literal["auto", "on"],
        tell: Callable[[str], None],
        segment: Callable[[], Segment] | None = None,
    ) -> None:
        self.state, self.mode, self._tell = state, mode, tell
        self._on_gpu = state.device.type == "cuda"
        self._stream = torch.cuda.Stream(state.device) if self._on_gpu else None  # type: ignore[no-untyped-call]
        if segment is None:
            pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
            segment = lambda: CudaSegment(pool, self._stream)  # type: ignore[arg-type] # noqa: E731
        self._segment = segment
        self._played: dict[int, int] = {}
        self.programs: dict[int, Program | None] = {}
        """Captured round of each kind, by the identity of its inputs; None for a kind that stays eager."""

    def play(self, inputs: RoundInputs) -> None:
        """Play a round: eagerly while its kind is warming up, then captured.

        Raises:
            UserError: `train.capture` is on and the round cannot be captured.
        """
        kind = id(inputs)
        if kind in self.programs:
            program = self.programs[kind]
            if program is None:
                with self._side_stream():
                    self.state.play(inputs)
                return
            self._replay(program)
            first = self.state.player_steps[0]
            for player_step in self.state.player_steps:
                player_step.timer.steps += player_step.player.turns - (player_step is first)
            return
        played = self._played[kind] = self._played.get(kind, 0) + 1
        if played <= WARM_UP or not inputs.noise.is_complete:
            self._eager(inputs)
            return
        self.programs[kind] = self._try(inputs)

    def close(self) -> None:
        """Free the graphs. Must come before the process group is destroyed."""
        for program in self.programs.values():
            for segment, _ in program or ():
                segment.reset()
        self.programs.clear()
        self._played.clear()

    def _eager(self, inputs: RoundInputs) -> None:
        """Play a round as its capture will: on the same stream, and with flat collectives."""
        with self._side_stream():
            for tensor in self.state.phases(inputs, reduced=False):
                self.state.slots.add(tensor)

    def _replay(self, program: Program) -> None:
        timer = self.state.player_steps[0].timer  # Of the work up to the first sum: where slow ranks are found.
        timer.start()
        for segment, tensor in program:
            segment.replay()
            if segment is program[0][0]:
                timer.stop()
            if tensor is not None:
                self.state.slots.add(tensor)

    def _try(self, inputs: RoundInputs) -> Program | None:
        """Play one round, and return its capture; None, with a line, if the kind stays eager."""
        steps = self.state.player_steps
        for player_step in steps:
            player_step.timer.is_on = False  # Several rounds are played, and one counts.
        try:
            return self._tried(inputs)
        finally:
            for player_step in steps:
                player_step.timer.is_on = True
                player_step.timer.steps += player_step.player.turns

    def _tried(self, inputs: RoundInputs) -> Program | None:
        if fault := self._cannot(inputs):
            self._refuse(fault)
            self._eager(inputs)
            return None
        tensors = self.state.tensors()
        before = _copies(tensors)
        program, fault = self._capture(inputs)
        if not self._all_agree(program is not None):
            _restore(tensors, before)
            self._eager(inputs)
            self._refuse(fault or "another rank could not capture it")
            return None
        assert program is not None
        _restore(tensors, before)
        seconds = self._timed(lambda: self._eager(inputs))
        eager = _copies(tensors)
        _restore(tensors, before)
        self._eager(inputs)  # How much two eager rounds differ, where kernels add in any order.
        again = _copies(tensors)
        _restore(tensors, before)
        captured_seconds = self._timed(lambda: self._replay(program))
        fault = _difference(_copies(tensors), eager, again)
        if not self._all_agree(not fault):
            _restore(tensors, eager)
            self._refuse(f"it computes something else than the eager one: {fault or 'on another rank'}")
            return None
        if not self._all_agree(self.mode == "on" or captured_seconds < seconds):
            self._tell(
                f"train.capture: rounds stay eager: captured {captured_seconds:.2g} s, eager {seconds:.2g} s a round"
            )
            return None
        self._tell(f"train.capture: rounds are captured ({seconds / captured_seconds:.1f} times as fast as eager ones)")
        return program

    def _cannot(self, inputs: RoundInputs) -> str | None:
        """Return the reason for which rounds of this kind cannot be captured, found without trying; else None."""
        if self._on_gpu and Version(torch.__version__) < OLDEST_TORCH:
            return f"torch {torch.__version__} is older than {OLDEST_TORCH}: upgrade it"
        for player_step in self.state.player_steps:
            if not player_step.optimizer.built_in:
                key = f"optimizer.{player_step.player.name}.name"
                return f"{key}: {player_step.settings.name} takes its steps in Python; take adam, adamw or sgd"
        tensors = self.state.tensors()
        before, texts = _copies(tensors), _watched(inputs)
        with HostReads() as reads:
            self._eager(inputs)
        _restore(tensors, before)
        if read := [name for name, text in texts if text.was_read]:
            return f"data.fields: {read[0]} is text, which a round reads outside of the device; take an embedding of it"
        found: str | None = reads.first  # The base class is untyped.
        return found

    def _capture(self, inputs: RoundInputs) -> tuple[Program | None, str]:
        """Capture a round without running it. Return the reason in place of a program that could not be had."""
        if self._on_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        program: Program = []
        phases = self.state.phases(inputs, reduced=False)
        if self.state.slots.workers == 1:
            phases = _joined(phases)
        try:
            while True:
                segment = self._segment()
                with segment:
                    tensor = next(phases, None)
                program.append((segment, tensor))
                if tensor is None:
                    return program, ""
        except (RuntimeError, torch.cuda.OutOfMemoryError) as error:
            for segment, _ in program:
                segment.reset()
            for player_step in self.state.player_steps:
                for norm in player_step.norms:
                    norm.recorded.clear()  # Of the passes of the round that broke off.
            return None, str(error).splitlines()[0]

    def _refuse(self, fault: str) -> None:
        if self.mode == "on":
            raise UserError(
                f"train.capture: on, but the round cannot be captured: {fault}; or take train.capture: auto"
            )
        self._tell(f"train.capture: rounds stay eager: {fault}")

    def _all_agree(self, value: bool) -> bool:
        """Return True if the value is True on all ranks. Collective."""
        agreed = torch.tensor(float(not value), device=self.state.device)
        self.state.slots.add(agreed)
        return not agreed.item()

    def _timed(self, play: Callable[[], None]) -> float:
        self._wait()
        begun = time.perf_counter()
        play()
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()

    def _side_stream(self) -> AbstractContextManager[Any]:
        """Return the context of the stream that rounds are captured on: parameters remember where they were used."""
        if self._stream is None:
            return nullcontext()
        return OnStream(self._stream)


@contextmanager
def captured_rounds(
    state: TrainingState, mode: Literal["auto", "on", "off"], tell: Callable[[str], None]
) -> Iterator[None]:
    """Capture the rounds that are played inside this block, on a GPU and unless `train.capture` is off."""
    if state.device.type != "cuda" or mode == "off":
        yield
        return
    captured = CapturedRounds(state, mode, tell)
    state.play_round = captured.play
    try:
        yield
    finally:
        captured.close()


def _joined(phases: Iterator[Tensor]) -> Iterator[Tensor]:
    """Run all phases in one: a single worker has nothing to add."""
    for _ in phases:
        pass
    yield from ()


def _watched(inputs: RoundInputs) -> list[tuple[str, WatchedTexts]]:
    """Replace the texts of a round by ones that note whether they are read. Return them, with the names of the fields.

    The texts of a field are needed for captions of pictures, while rounds of ganrun's own games read embeddings.
    """
    found = []
    for batch in itertools.chain.from_iterable(inputs.batches):
        for name in [name for name, value in batch.items() if not isinstance(value, Tensor)]:
            texts = batch[name] = WatchedTexts(batch[name])
            found.append((name, texts))
    return found


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    """Return copies in host memory: a GPU may have no room for them beside the graphs."""
    return [tensor.to("cpu", copy=True) for tensor in tensors]


def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _difference(found: list[Tensor], eager: list[Tensor], again: list[Tensor]) -> str:
    """Return how the state after a captured round differs from that after an eager one, beyond what two differ by."""
    for number, (mine, theirs, other) in enumerate(zip(found, eager, again, strict=True)):
        if not mine.is_floating_point():
            continue
        scale = float(theirs.abs().max()) if theirs.numel() else 0.0
        allowed = 2 * float((theirs - other).abs().max()) + ROUNDING * scale if theirs.numel() else 0.0
        off = float((mine - theirs).abs().max()) if theirs.numel() else 0.0
        if not off <= allowed:
            return f"tensor {number} of the state is off by {off:.2g}, {allowed:.2g} is allowed"
    return ""
