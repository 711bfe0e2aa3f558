"""Faults of the section `cluster`: the keys involved, and the message."""

import re

from ganrun.config.schema import Config
from ganrun.config.validate_parts import Faults

SECRET = re.compile("SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Names of variables that must not stand in a config."""
LIBRARIES = ("NCCL_", "GLOO_", "FI_", "UCX_", "TORCH_", "PYTORCH_", "CUDA_", "OMP_", "MKL_", "KMP_")
"""Beginnings of the variables that workers may be given: of what they communicate and compute with."""


def environment_faults(config: Config) -> Faults:
    """Yield variables of `cluster.env` that are secrets, or of no library that workers communicate or compute with."""
    for name in config.cluster.env:
        key = f"cluster.env.{name}"
        if SECRET.search(name):
            yield (
                {key},
                f"{key}: the name of a secret, which must not stand in a config; set it where Ray is started",
            )
        elif not re.fullmatch(rf"({'|'.join(LIBRARIES)})[A-Z0-9_]+", name):
            yield (
                {key},
                f"{key}: not a variable of NCCL, Gloo, libfabric, UCX, PyTorch, CUDA or OpenMP, whose names begin with "
                f"{', '.join(LIBRARIES)}; set others where Ray is started",
            )


def decode_conflicts(config: Config) -> Faults:
    """Yield a decoder on a GPU without one."""
    if config.data.decode == "gpu" and not config.cluster.gpus_per_worker:
        yield (
            {"data.decode", "cluster.gpus_per_worker"},
            "data.decode: gpu needs a GPU, but cluster.gpus_per_worker is 0; set it to 1, or take cpu",
        )
