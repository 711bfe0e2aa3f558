"""The least that a GAN step can cost on a GPU: nothing but kernels, as one CUDA graph.

It has one backward pass for both losses of the discriminator and one for the generator's, no weight gradients of the
discriminator in the generator's turn, fused Adam, bf16 autocast and channels last. It has none of what a run needs:
metrics, averages, skipped gradients, the same noise on any number of workers. A round's speed over its own is the share
of the machine that the round uses.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ganrun.benchmarks.tutorial_step import plain
from ganrun.config.run_spec import RunSpec
from ganrun.data.decode import RawBatch
from ganrun.games.build import build_game
from ganrun.training.cuda_graph import WARM_UP
from ganrun.training.cuda_segment import CudaSegment, OnStream, Segment


class LeanStep:
    """A step with the networks of a config; calling it runs it.

    Args:
        spec: the run.
        batch: images [B, C, S, S] uint8, and labels, on the device.
    """

    def __init__(self, spec: RunSpec, batch: RawBatch) -> None:
        images, labels = batch["image"], batch.get("label")
        assert isinstance(images, Tensor)
        assert labels is None or isinstance(labels, Tensor)
        self.device, self.labels = images.device, labels
        networks = build_game(spec, self.device).networks
        self.generator, self.discriminator = (
            plain(networks[name]).requires_grad_().to(memory_format=torch.channels_last)
            for name in ("generator", "discriminator")
        )
        self.real = images.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        self.z = torch.empty(len(images), spec.model.latent_size, device=self.device)
        on_gpu = self.device.type == "cuda"
        self.optimizers = [
            torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999), fused=True, capturable=on_gpu)
            for network in (self.discriminator, self.generator)
        ]

    def __call__(self) -> None:
        """Run a step."""
        self.z.normal_()
        with self._autocast():
            fake = self.generator(self.z, self.labels)
            real_logits = self.discriminator(self.real, self.labels)
            fake_logits = self.discriminator(fake.detach(), self.labels)
        self._update(0, softplus(-real_logits.float()).mean() + softplus(fake_logits.float()).mean())
        self.discriminator.requires_grad_(False)
        with self._autocast():
            logits = self.discriminator(fake, self.labels)
        self._update(1, softplus(-logits.float()).mean())
        self.discriminator.requires_grad_(True)

    def _update(self, player: int, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[player].step()

    def _autocast(self) -> torch.autocast:
        # The cache of cast weights would outlive a captured region.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)


def as_graph(step: LeanStep, segment: Segment | None = None) -> Callable[[], None]:
    """Capture a step and return its replay.

    Args:
        step: the step; it is warmed up first, on the stream of its capture.
        segment: what records it; None: a CUDA graph.
    """
    if segment is None:
        stream = torch.cuda.Stream(step.device)  # type: ignore[no-untyped-call]
        with OnStream(stream):
            _warm_up(step)
        segment = CudaSegment(torch.cuda.graph_pool_handle(), stream)  # type: ignore[no-untyped-call]
    else:
        _warm_up(step)
    with segment:
        step()
    return segment.replay


def _warm_up(step: LeanStep) -> None:
    for _ in range(WARM_UP):
        step()
