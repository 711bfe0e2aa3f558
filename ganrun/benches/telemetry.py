"""What it costs a run on a CPU to be watched: the same rounds with its state pushed to a sidecar, and without.

Workers, driver and sidecar share this machine's cores here, and the first two even a process: in a cluster the workers
have machines of their own, so that this is the most that it can cost.
"""

import math
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import torch

from ganrun.benches.comparison import ratio, result
from ganrun.data.decode import RawBatch
from ganrun.games.build import build_game
from ganrun.picture import to_png
from ganrun.play import Play
from ganrun.rng import Draw
from ganrun.sections import Config
from ganrun.slots import Slots
from ganrun.telemetry.protocol import OFF, VARIABLE, Address
from ganrun.telemetry.push import Pusher, health
from ganrun.telemetry.state import Past, RunState

REPEATS, SECONDS = 15, 4.0
SAY_SECONDS = 0.25
"""How often the driver hears of the workers."""


def measure(config: Config) -> dict[str, Any]:
    """Images/s with pushes every `telemetry.push_seconds` to a real sidecar, and without, in turn."""
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    play = Play(build_game(config, torch.device("cpu")), config, Slots(1))
    rates: dict[bool, list[float]] = {True: [], False: []}
    with Sidecar() as address:
        _rate(play, None, SECONDS)
        for _ in range(REPEATS):
            for watched in (True, False):
                rates[watched].append(_rate(play, address if watched else None, SECONDS))
    pairs = list(zip(rates[True], rates[False], strict=True))
    error = statistics.stdev(on / off for on, off in pairs) / math.sqrt(REPEATS)
    share = ratio(rates[True], rates[False])
    return result(
        "telemetry", "the same rounds unwatched", "images/s", rates[True], rates[False], limit_share=share, error=error
    )


def describe(result: dict[str, Any]) -> str:
    """In words."""
    return (
        f"watched {result['ours']:,.0f} images/s, {result['peer']} {result['theirs']:,.0f} images/s\n"
        f"ratio {result['ratio']:.4f} "
        f"(median of {result['repeats']} pairs in turn, standard error {result['error']:.4f})"
    )


class Sidecar:
    """A sidecar of this measurement alone."""

    def __enter__(self) -> Address:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = Address(port=free.getsockname()[1])
        command = [sys.executable, "-m", "ganrun.sidecar", "--listen", f"{address.host}:{address.port}"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {VARIABLE: OFF})
        while health(address) is None:
            time.sleep(0.1)
        return address

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def _rate(play: Play, address: Address | None, seconds: float) -> float:
    """Real images a second over rounds, and ticks once a second."""
    state = RunState(play.config, Past()) if address else None
    pusher = (
        Pusher(state, address, False, play.config.telemetry.push_seconds or 5, _unheard) if address and state else None
    )
    saying = threading.Event()
    driver = threading.Thread(target=_hear, args=(state, play, saying), daemon=True)
    driver.start()
    data = play.config.data
    shape = (data.batch_size, data.channels, data.image_size, data.image_size)
    batch: RawBatch = {"image": torch.randint(0, 256, shape, dtype=torch.uint8)}
    if play.config.model.classes:
        batch["label"] = torch.arange(data.batch_size) % play.config.model.classes
    before, begun = play.images, time.perf_counter()
    ticked = begun
    while (now := time.perf_counter()) - begun < seconds:
        play.round(lambda: [batch])
        if now - ticked > 1:
            ticked = now
            _tick(play, state)
    rate = (play.images - before) / (time.perf_counter() - begun)
    saying.set()
    driver.join()
    if pusher:
        pusher.close()
    return rate


def _tick(play: Play, state: RunState | None) -> None:
    """Both sides read their sums and draw a picture; one has them shown."""
    values, nonfinite = play.recorder.read()
    draw = Draw(play.config.run.seed, 0, 0, 0, play.device, play.dtype)
    with torch.inference_mode():
        z = play.game.latent.draw(draw, play.config.telemetry.sample_images, "samples/z")
        images = play.game.sample(play.averaged_networks, z, play.game.labels(0, len(z), play.device))
    png = to_png(images)
    if state:
        state.hear({"kind": "tick", "images": play.images, "values": values | {"nonfinite": nonfinite}})
        state.hear({"kind": "picture", "images": play.images, "png": png, "diversity": 0.0})


def _hear(state: RunState | None, play: Play, over: threading.Event) -> None:
    """The driver's part."""
    while not over.wait(SAY_SECONDS):
        if state:
            state.hear({"kind": "images", "images": play.images})


def _unheard(text: str) -> None:
    """What a pusher says to the user, whom nobody asked here."""
