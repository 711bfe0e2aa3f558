"""DCGAN training step of tutorials, with the networks of a config.

It does what pytorch/examples' dcgan script does: `BCELoss` of probabilities, two backward passes for the discriminator,
unused gradients of the discriminator in the generator's step, the same generated images in both, default Adam, default
memory layout, five values read back per step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ganrun.config.run_spec import RunSpec
from ganrun.data.decode import RawBatch
from ganrun.games.build import build_game
from ganrun.models.normalization import SlotBatchNorm2d

CPU = torch.device("cpu")
NAME = "textbook DCGAN step (as in pytorch/examples)"


@dataclass
class TutorialStep:
    """Networks and optimizers of such a script."""

    generator: nn.Module
    discriminator: nn.Module
    latent_size: int

    @classmethod
    def of(cls, spec: RunSpec, distributed: bool = False, device: torch.device = CPU) -> "TutorialStep":
        """Build it with the networks of a config, each in DistributedDataParallel if `distributed`."""
        networks = build_game(spec, device).networks
        pair = [plain(networks[name]).requires_grad_() for name in ("generator", "discriminator")]
        if distributed:
            pair = [DistributedDataParallel(network) for network in pair]
        return cls(pair[0], pair[1], spec.model.latent_size)

    def in_bf16(self, batch: RawBatch) -> Callable[[], None]:
        """Return the step as people speed it up: bf16 autocast and channels last; losses stay in float32."""
        for network in (self.generator, self.discriminator):
            network.to(memory_format=torch.channels_last)
        return self.steps(batch, bf16=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Parameters of the discriminator and of the generator."""
        return [
            torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999))
            for network in (self.discriminator, self.generator)
        ]

    def steps(self, batch: RawBatch, bf16: bool = False) -> Callable[[], None]:
        """Return a function that runs a step on this batch."""
        images, labels = batch["image"], batch.get("label")
        assert isinstance(images, Tensor)
        assert labels is None or isinstance(labels, Tensor)
        layout = torch.channels_last if bf16 else torch.contiguous_format
        real_images = images.float().div(127.5).sub(1).contiguous(memory_format=layout)
        return partial(self.training(bf16), real_images, labels)

    def training(self, bf16: bool = False) -> Callable[[Tensor, Tensor | None], None]:
        """Return a function that runs a step on real images [B, C, S, S] in [-1, 1] and their labels [B]."""
        optimizer_d, optimizer_g = self.optimizers()
        loss = nn.BCELoss()

        def step(real_images: Tensor, labels: Tensor | None) -> None:
            device, count = real_images.device, len(real_images)

            def judged(images: Tensor) -> Tensor:
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    logits: Tensor = self.discriminator(images, labels)
                return torch.sigmoid(logits.float())

            label = torch.ones(count, device=device)
            self.discriminator.zero_grad()
            real_output = judged(real_images)
            real_loss = loss(real_output, label)
            real_loss.backward()
            real_output.mean().item()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                fake_images = self.generator(torch.randn(count, self.latent_size, device=device), labels)
            fake_output = judged(fake_images.detach())
            fake_loss = loss(fake_output, label.fill_(0))
            fake_loss.backward()
            fake_output.mean().item()
            optimizer_d.step()
            self.generator.zero_grad()
            output = judged(fake_images)
            generator_loss = loss(output, label.fill_(1))
            generator_loss.backward()
            _ = output.mean().item()
            optimizer_g.step()
            _ = (real_loss + fake_loss).item(), generator_loss.item()

        return step


def plain(network: nn.Module) -> nn.Module:
    """Return the network with PyTorch's batch normalisation and memory layout."""
    network = network.to(memory_format=torch.contiguous_format).float()
    device = next(network.parameters()).device
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, SlotBatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(child.num_features, device=device))
    return network
