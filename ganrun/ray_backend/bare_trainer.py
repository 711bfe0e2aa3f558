"""Bare TorchTrainer, after Ray's own guide: the baseline for the start-up time of `ganrun train`.

Takes one argument, the JSON `{"model", "data", "workers", "cpus_per_worker", "num_cpus"}`. Prints the time, in seconds
since the epoch, at which the last worker completed its first step of a DCGAN on noise images.
"""

import json
import sys
import time
from typing import Any


def main() -> None:
    """Start a local Ray, train one step, and print the time of its end."""
    import ray
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    job = json.loads(sys.argv[1])
    # Leave out what ganrun leaves out: a dashboard alone costs seconds.
    ray.init(address="local", num_cpus=job["num_cpus"], include_dashboard=False, log_to_driver=False)
    clock = ray.remote(_Clock).options(num_cpus=0).remote()
    scaling = ScalingConfig(num_workers=job["workers"], resources_per_worker={"CPU": job["cpus_per_worker"]})
    TorchTrainer(_train, train_loop_config=job | {"clock": clock}, scaling_config=scaling).fit()
    print(ray.get(clock.last.remote()))


class _Clock:
    """Actor that collects the times at which workers completed their step."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def there(self, when: float) -> None:
        """Record the time of a worker."""
        self._times.append(when)

    def last(self) -> float:
        """Return the time of the last worker."""
        return max(self._times)


def _train(job: dict[str, Any]) -> None:
    import ray
    import torch
    from ray.train.torch import prepare_model

    from ganrun.config.registry import NETWORKS
    from ganrun.config.schema import DataConfig, ModelConfig

    torch.set_num_threads(max(1, int(job["cpus_per_worker"])))
    model, data = ModelConfig.model_validate(job["model"]), DataConfig.model_validate(job["data"])
    networks = NETWORKS[model.name](model, data)
    discriminator, generator = (prepare_model(networks[name]) for name in ("discriminator", "generator"))
    of_discriminator, of_generator = (
        torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (discriminator, generator)
    )
    batch, loss = data.batch_size // job["workers"], torch.nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(batch), torch.zeros(batch)
    label = torch.arange(batch) % model.classes if model.classes else None
    real = torch.randn(batch, data.channels, data.image_size, data.image_size)
    fake = generator(torch.randn(batch, model.latent_size), label)
    shown, labels = torch.cat([real, fake.detach()]), None if label is None else torch.cat([label, label])
    loss(discriminator(shown, labels), torch.cat([ones, zeros])).backward()
    of_discriminator.step()
    loss(discriminator(fake, label), ones).backward()
    of_generator.step()
    ray.get(job["clock"].there.remote(time.time()))


if __name__ == "__main__":
    main()
