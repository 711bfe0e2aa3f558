"""How fast a round is, beside the DCGAN training step as tutorials have it.

The peer does what pytorch/examples' dcgan script does, in the same networks: losses of probabilities by
`BCELoss`, two backward passes for the discriminator, gradients of the discriminator computed and thrown away in the
generator's step, default Adam, default memory layout, four values read back every step.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ganrun.data.decode import RawBatch
from ganrun.games.build import build_game
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.play import Play
from ganrun.sections import Config
from ganrun.slots import Slots

REPEATS, SECONDS = 7, 2.0
PEER = "textbook DCGAN step (as in pytorch/examples)"


def measure(config: Config) -> dict[str, Any]:
    """Images/s of a round in float32 and bf16 and of the peer, data in memory, all on one slot and in turn."""
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    sides = {
        "float32": _round(_with_precision(config, "float32")),
        "bf16": _round(_with_precision(config, "bf16")),
        "peer": _textbook(config),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        _rate(side, config, seconds=SECONDS / 2)
    peak = 0.0
    for _ in range(REPEATS):
        peak = max(peak, _peak_flops())  # Again and again: a shared machine is at its best but now and then.
        for name, side in sides.items():
            rates[name].append(_rate(side, config, SECONDS))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: statistics.median(ours / theirs for ours, theirs in zip(rates[name], rates["peer"], strict=True))
        for name in ("float32", "bf16")
    }
    best = "bf16" if config.train.precision == "bf16" else "float32"
    return {
        "what": "step",
        "peer": PEER,
        "ours": medians[best],
        "theirs": medians["peer"],
        "unit": "images/s",
        "ratio": ratios[best],
        "float32_ratio": ratios["float32"],
        "bf16_ratio": ratios["bf16"],
        "limit_share": _flops(sides["float32"]) * medians["float32"] / config.data.batch_size / peak,
        "repeats": REPEATS,
        "spread": (max(rates[best]) - min(rates[best])) / medians[best],
    }


def describe(result: dict[str, Any]) -> str:
    """In words."""
    return (
        f"a round: {result['ours']:,.0f} images/s; {result['peer']}: {result['theirs']:,.0f} images/s\n"
        f"ratio in float32 {result['float32_ratio']:.2f}, in bf16 {result['bf16_ratio']:.2f} "
        f"(medians of {result['repeats']} repeats in turn, spread {result['spread']:.0%})\n"
        f"float32 reaches {result['limit_share']:.0%} of what a matrix product reaches here"
    )


def _with_precision(config: Config, precision: str) -> Config:
    train = config.train.model_copy(update={"precision": precision})
    return config.model_copy(update={"train": train})


def _images(config: Config) -> Tensor:
    data = config.data
    shape = (data.batch_size, data.channels, data.image_size, data.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def _labels(config: Config) -> Tensor | None:
    return torch.arange(config.data.batch_size) % config.model.classes if config.model.classes else None


def _round(config: Config) -> Callable[[], None]:
    play = Play(build_game(config, torch.device("cpu")), config, Slots(1))
    label = _labels(config)
    batch: RawBatch = {"image": _images(config)}
    if label is not None:
        batch["label"] = label
    return lambda: play.round(lambda: [batch])


def _textbook(config: Config) -> Callable[[], None]:
    networks = build_game(config, torch.device("cpu")).networks
    generator, discriminator = (_plain(networks[name]) for name in ("generator", "discriminator"))
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (discriminator, generator)]
    loss, batch, latent_size = nn.BCELoss(), config.data.batch_size, config.model.latent_size
    real_images = _images(config).float().div(127.5).sub(1)
    ones, zeros, label = torch.ones(batch), torch.zeros(batch), _labels(config)

    def step() -> None:
        discriminator.zero_grad()
        real_output = torch.sigmoid(discriminator(real_images, label))
        real_loss = loss(real_output, ones)
        real_loss.backward()
        real_output.mean().item()
        fake_images = generator(torch.randn(batch, latent_size), label)
        fake_output = torch.sigmoid(discriminator(fake_images.detach(), label))
        fake_loss = loss(fake_output, zeros)
        fake_loss.backward()
        fake_output.mean().item()
        optimizers[0].step()
        generator.zero_grad()
        output = torch.sigmoid(discriminator(fake_images, label))
        generator_loss = loss(output, ones)
        generator_loss.backward()
        optimizers[1].step()
        _ = output.mean().item(), (real_loss + fake_loss).item(), generator_loss.item()

    return step


def _plain(network: nn.Module) -> nn.Module:
    """The same network with PyTorch's batch normalisation and memory layout."""
    network = network.to(memory_format=torch.contiguous_format).float()
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, SlotBatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(child.num_features))
    return network


def _rate(step: Callable[[], None], config: Config, seconds: float) -> float:
    """Real images a second."""
    turns = 0
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        step()
        turns += 1
    return turns * config.data.batch_size / passed


def _flops(step: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def _peak_flops(size: int = 1024, repeats: int = 10) -> float:
    """Floating-point operations a second of a float32 matrix product, by the faster of the machine's two libraries:
    a product as such, and as a 1x1 convolution, which is what networks here are made of."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    image, kernel = torch.randn(1, size, 32, 32).to(memory_format=torch.channels_last), torch.randn(size, size, 1, 1)
    best = float("inf")
    products: list[Callable[[], Tensor]] = [lambda: a @ b, lambda: torch.conv2d(image, kernel)]
    for product in products:
        for _ in range(repeats):
            begun = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best
