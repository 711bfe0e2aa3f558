"""Trackers: TensorBoard, Weights & Biases and MLflow. Each keeps one run; the x axis is the images shown.

A tracker finds its server by its own variables: WANDB_*, MLFLOW_TRACKING_URI. `tracking.py` calls it from a thread.
"""

import contextlib
import io
import json
import os
import struct
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import yaml

from ganrun.storage import Storage

IDS = "trackers.json"
"""File in a run's folder: the id of the run at each tracker, by which a resumed run continues there."""
PROJECT = "ganrun"
"""Project of W&B and experiment of MLflow, unless WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME name others."""


_writing = threading.Lock()
"""Held while IDS is changed: each tracker has a thread."""


@dataclass(frozen=True)
class TrackedRun:
    """A run, as trackers see it."""

    name: str
    storage: Storage
    """The run's folder."""
    config: Mapping[str, Any]
    """Its config, as JSON."""
    totals: Mapping[str, float] = field(default_factory=dict)
    """Counters before this command, by key (series.py)."""
    search: str = ""
    """Name of the search whose trial the run is; empty outside one."""
    search_storage: Storage | None = None
    """The search's folder."""


class Tracker(Protocol):
    """A run at a tracker. `images` is the x axis; `when` is in seconds since the epoch."""

    def begin(self, images: int, when: float) -> None:
        """Take a start of the workers at a checkpoint of so many images: later images are shown again."""

    def scalars(self, images: int, when: float, values: Mapping[str, float]) -> None:
        """Take values by key (series.py)."""

    def picture(self, images: int, when: float, png: bytes) -> None:
        """Take a picture of samples."""

    def text(self, name: str, images: int, when: float, text: str) -> None:
        """Take a line: the newest `score`, or one of the `lineage` of a trial."""

    def flush(self) -> None:
        """Make what was taken visible."""

    def close(self, ending: str) -> None:
        """End the run: finished, stopped (and to be resumed) or failed."""


class TensorBoard:
    """Event files in `tensorboard/` of the run's folder: `tensorboard --logdir runs`.

    In object storage, to which nothing can be appended, each flush makes a file, at most one in SEGMENT_SECONDS.
    """

    SEGMENT_SECONDS = 30.0

    def __init__(self, run: TrackedRun) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._session, self._text = Event, SessionLog, text_pb
        self._storage, self._buffer, self._segment = run.storage, io.BytesIO(), 0
        self._records, self._written = RecordWriter(self._buffer), time.monotonic()
        now = time.time()
        self._name = f"tensorboard/events.out.tfevents.{now:.6f}"  # TensorBoard reads files in the order of names.
        self._write(now, file_version="brain.Event:2")
        flat = {key: value for key, value in flatten(run.config).items() if isinstance(value, bool | int | float | str)}
        self._write(now, summary=hparams_pb(flat, trial_id=run.name))
        self.text("config", 0, now, f"```yaml\n{as_yaml(run)}```")

    def begin(self, images: int, when: float) -> None:
        """Have TensorBoard drop what is beyond this point."""
        self._write(when, step=images + 1, session_log=self._session(status=self._session.START))

    def scalars(self, images: int, when: float, values: Mapping[str, float]) -> None:
        """Write scalar summaries."""
        self._write(when, step=images, summary={"value": [{"tag": k, "simple_value": v} for k, v in values.items()]})

    def picture(self, images: int, when: float, png: bytes) -> None:
        """Write an image summary with the PNG as it is."""
        width, height = struct.unpack(">II", png[16:24])  # Of IHDR, a PNG's first chunk.
        image = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": png}
        self._write(when, step=images, summary={"value": [{"tag": "samples", "image": image}]})

    def text(self, name: str, images: int, when: float, text: str) -> None:
        """Write a text summary."""
        self._write(when, step=images, summary=self._text(name, text))

    def flush(self) -> None:
        """Append to the event file, or in object storage write the next one if it is time."""
        if self._storage.traffic is None or time.monotonic() - self._written > self.SEGMENT_SECONDS:
            self.close("")

    def close(self, ending: str) -> None:
        """Write what is left."""
        if data := self._buffer.getvalue():
            in_folder = self._storage.traffic is None
            self._storage.append(self._name if in_folder else f"{self._name}.{self._segment:06d}", data)
            self._buffer.seek(0)
            self._buffer.truncate()
            self._segment, self._written = self._segment + 1, time.monotonic()

    def _write(self, when: float, **content: Any) -> None:
        self._records.write(self._event(wall_time=when, **content).SerializeToString())


class WeightsAndBiases:
    """Run of Weights & Biases, also offline (WANDB_MODE=offline). Trials of a search are a group."""

    TIMEOUT_SECONDS = 8.0
    """Longest time that the end of a run, and of the process, waits for uploads."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        settings = wandb.Settings(
            console="off", silent=True, x_disable_stats=True, finish_timeout=self.TIMEOUT_SECONDS, init_timeout=60
        )
        if not (wandb.setup(settings).settings.mode in ("offline", "disabled") or wandb.login(prompt=False)):
            raise ConnectionError("no API key; call `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")
        here = run.storage.uri.removeprefix("file://")
        self._run = wandb.init(
            project=wandb.setup().settings.project or PROJECT,
            name=run.name,
            id=read_ids(run.storage).get("wandb") or write_id(run.storage, "wandb", uuid.uuid4().hex[:12]),
            resume="allow",
            reinit="create_new",  # Trials of a search run side by side.
            group=run.search or None,
            config=dict(run.config),
            dir=None if "://" in here else here,
            settings=settings,
            allow_val_change=True,
        )
        self._wandb = wandb
        self._run.define_metric("images")
        self._run.define_metric("*", step_metric="images")  # W&B's own steps only rise; a rollback goes back.

    def begin(self, images: int, when: float) -> None:
        """Do nothing: the curve goes back to these images."""

    def scalars(self, images: int, when: float, values: Mapping[str, float]) -> None:
        """Log values."""
        self._run.log({"images": images, "_timestamp": when, **values})

    def picture(self, images: int, when: float, png: bytes) -> None:
        """Log the picture."""
        from PIL import Image

        self._run.log({"images": images, "samples": self._wandb.Image(Image.open(io.BytesIO(png)))})

    def text(self, name: str, images: int, when: float, text: str) -> None:
        """Set the line in the summary; a lineage grows."""
        before = self._run.summary.get(name, "") if name == "lineage" else ""
        self._run.summary[name] = f"{before}\n{text}".strip()

    def flush(self) -> None:
        """Do nothing: W&B uploads in a process of its own."""

    def close(self, ending: str) -> None:
        """End the run. One that is stopped may be continued by the same id."""
        self._run.summary["ending"] = ending
        self._run.finish(exit_code=int(ending == "failed"))


class MLflow:
    """Run of MLflow at MLFLOW_TRACKING_URI. Trials are nested below a run of their search."""

    STATUS: ClassVar = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    PARAMS = 100
    """Most parameters that a request may have."""

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow
        from mlflow.entities import Metric

        self._client, self._metric, self._parent = mlflow.MlflowClient(), Metric, ""
        tags = {}
        if run.search and run.search_storage:
            self._parent = self._run_of(run.search_storage, run.search, {}, {})
            tags["mlflow.parentRunId"] = self._parent
        self._id = self._run_of(run.storage, run.name, tags, flatten(run.config))
        self._client.update_run(self._id, status="RUNNING", name=run.name)
        # Parameters cannot change at MLflow; this file is the config of the newest command.
        self._client.log_text(self._id, as_yaml(run), "config.yaml")

    def begin(self, images: int, when: float) -> None:
        """Do nothing: the curve goes back to these images."""

    def scalars(self, images: int, when: float, values: Mapping[str, float]) -> None:
        """Log metrics with the images as step."""
        metrics = [self._metric(key, value, round(when * 1000), images) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, images: int, when: float, png: bytes) -> None:
        """Log the picture as one of a series over images."""
        from PIL import Image

        about = {"key": "samples", "step": images, "timestamp": round(when * 1000)}
        # Else MLflow has a thread of its own, whose faults nobody hears and which the end of a run cuts off.
        self._client.log_image(self._id, Image.open(io.BytesIO(png)), synchronous=True, **about)

    def text(self, name: str, images: int, when: float, text: str) -> None:
        """Set a tag; a lineage grows."""
        before = self._client.get_run(self._id).data.tags.get(name, "") if name == "lineage" else ""
        self._client.set_tag(self._id, name, f"{before}\n{text}".strip())

    def flush(self) -> None:
        """Do nothing: each call has been answered."""

    def close(self, ending: str) -> None:
        """Set the status."""
        for each in filter(None, (self._id, self._parent)):
            self._client.set_terminated(each, self.STATUS[ending])

    def _run_of(self, storage: Storage, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """Return the id of the run that a folder names if the server still has it, else of a new one."""
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        try:
            before = read_ids(storage).get("mlflow")
            if before and self._client.get_run(before).info.lifecycle_stage == "active":
                return before
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        made: str = self._client.create_run(number, tags=dict(tags), run_name=name).info.run_id
        items = [Param(key, str(value)[:6000]) for key, value in params.items()]
        for start in range(0, len(items), self.PARAMS):
            self._client.log_batch(made, params=items[start : start + self.PARAMS])
        return write_id(storage, "mlflow", made)


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""Trackers by name in `telemetry.trackers`, which is also that of their extra."""


def read_ids(storage: Storage) -> dict[str, str]:
    """Return the ids of a run by tracker; empty before its first start, or if the file is corrupt."""
    found = storage.read_version(IDS)
    with contextlib.suppress(ValueError, AttributeError):
        return {str(name): str(value) for name, value in json.loads(found[0]).items()} if found else {}
    return {}


def write_id(storage: Storage, tracker: str, value: str) -> str:
    """Write the id of a run at a tracker, and return it."""
    with _writing:
        storage.write(IDS, json.dumps(read_ids(storage) | {tracker: value}, indent=1).encode())
    return value


def flatten(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested values by dotted key, such as `optimizer.generator.learning_rate`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def as_yaml(run: TrackedRun) -> str:
    """Return a run's config as YAML."""
    return yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
