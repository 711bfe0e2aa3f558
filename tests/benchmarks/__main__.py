"""Measurements that only a developer runs: `python -m tests.benchmarks ablation configs/dcgan_64.yaml`."""

import sys

from ganrun import bench

MEASURES = {
    "ablation": "the round without each of the things that make it fast, against the round",
    "ddp": "the round of two workers, against two processes that have nothing to do with each other",
    "gap": "the duality gap of a run, against the Fréchet distance of as many images",
    "search": "what scores of a search cost, and whether fewer samples rank its trials alike",
    "telemetry": "CPU seconds that a sidecar and what is told it take, beside those of the rounds",
}

if __name__ == "__main__":
    sys.exit(bench.main(sys.argv[1:], MEASURES, "tests.benchmarks"))
