"""Profile of some rounds of a run, written to its folder."""

import os
from collections.abc import Callable

from ganrun.config.run_spec import RunSpec
from ganrun.run_folder.run_folder import RunFolder
from ganrun.telemetry.profiler import RoundProfiler
from ganrun.telemetry.records import ProfileEnded
from ganrun.training.state import TrainingState


def round_profiler(
    spec: RunSpec, state: TrainingState, folder: RunFolder, emit_event: Callable[[ProfileEnded], None]
) -> RoundProfiler | None:
    """Return a profiler of `train.profile_rounds` rounds of this worker; None if that is 0 or the profile exists.

    Each worker writes its own trace, rank 0 the page, too.

    Args:
        spec: of the run.
        state: of this worker.
        folder: of the run.
        emit_event: see `WorkerHost.emit_event`.
    """
    rounds, rank = spec.train.profile_rounds, state.slots.rank
    place, trace = f"profile/{rounds}-rounds", f"rank{rank}.json.gz"
    if not rounds or trace in folder.storage.list(place):
        return None

    def keep(found: dict[str, bytes]) -> None:
        files = {"summary.md": found["summary.md"], trace: found["trace.json.gz"]}
        names = [f"{place}/{name}" for name in files if name == trace or rank == 0]
        try:
            for name in names:
                folder.storage.write(name, files[name.rpartition("/")[2]])
        except OSError as error:  # A profile that cannot be written does not stop a run.
            message = f"{folder.storage.uri}/{place} could not be written: {error.strerror or error}"
        else:
            message = (
                f"profiled {rounds} rounds: read {folder.storage.uri}/{place}/summary.md, and open {trace} beside it "
                "at https://ui.perfetto.dev or chrome://tracing"
            )
        if rank == 0:
            emit_event(ProfileEnded(images=state.images, files=names, message=message))

    batch = f"batches of {spec.data.batch_size} in {spec.slots} slots, {spec.train.precision}"
    about = (
        f"Run {spec.run.name}, {spec.model.name} of width {spec.model.width}, {batch}; rank 0 of "
        f"{state.slots.workers}, {state.device.type}, {os.cpu_count()} CPUs here, "
        f"cluster.cpus_per_worker: {spec.cluster.cpus_per_worker:g}."
    )
    return RoundProfiler(rounds, state.device, about, keep)
