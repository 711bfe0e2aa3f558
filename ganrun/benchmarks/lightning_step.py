"""DCGAN step under Lightning's manual optimisation, on images in memory, as in its documentation of GANs.

The generator is updated first. Each optimizer is toggled for its turn, so that the other player's weights are frozen.
The discriminator's two losses share one backward pass.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ganrun.benchmarks.rounds import a_batch
from ganrun.benchmarks.tutorial_step import TutorialStep
from ganrun.config.run_spec import RunSpec
from ganrun.data.decode import RawBatch


def loop(spec: RunSpec, seconds: float) -> Callable[[], float]:
    """Return a function that trains the module for `seconds` more and returns images/s."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module, size = _Pair(TutorialStep.of(spec)), spec.data.batch_size

    def fit() -> float:
        source = _Source(a_batch(spec, size), seconds)
        trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, barebones=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Warnings about loaders without workers.
            trainer.fit(module, source)
        return (len(source.times) - 1) * size / (source.times[-1] - source.times[0])

    return fit


class _Source:
    """Repeat one batch for some seconds and record the time of each request. The first ones are warm-up."""

    def __init__(self, batch: RawBatch, seconds: float) -> None:
        self.batch, self.seconds = batch, seconds
        self.times: list[float] = []

    def __iter__(self) -> Iterator[RawBatch]:
        yield self.batch
        yield self.batch
        begun = time.perf_counter()
        while not self.times or time.perf_counter() - begun < self.seconds:
            self.times.append(time.perf_counter())
            yield self.batch
        self.times.append(time.perf_counter())


class _Pair(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self, book: TutorialStep) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator, self.latent_size = book.generator, book.discriminator, book.latent_size
        self._optimizers = book.optimizers()

    def configure_optimizers(self) -> Any:
        return self._optimizers

    def training_step(self, batch: dict[str, Tensor], number: int) -> None:
        images, labels = batch["image"].float().div(127.5).sub(1), batch.get("label")
        optimizer_d, optimizer_g = self.optimizers()
        z = torch.randn(len(images), self.latent_size)

        self.toggle_optimizer(optimizer_g)
        logits = self.discriminator(self.generator(z, labels), labels)
        self._step(optimizer_g, binary_cross_entropy_with_logits(logits, torch.ones_like(logits)))
        self.untoggle_optimizer(optimizer_g)

        self.toggle_optimizer(optimizer_d)
        real = self.discriminator(images, labels)
        fake = self.discriminator(self.generator(z, labels).detach(), labels)
        losses = [
            binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
            for logits, target in ((real, 1.0), (fake, 0.0))
        ]
        self._step(optimizer_d, sum(losses) / 2)
        self.untoggle_optimizer(optimizer_d)

    def _step(self, optimizer: Any, loss: Any) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
