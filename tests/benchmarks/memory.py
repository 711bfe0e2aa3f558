"""Prints the table of memory in docs/scale.md, as `ganrun bench scale` forecasts it.

python -m tests.benchmarks.memory
"""

from ganrun.benchmarks.memory import forecast
from ganrun.benchmarks.rounds import changed
from ganrun.config.load import load_config

ROWS = [
    *(("dcgan_64", size) for size in (64, 128, 256)),
    *(("r3gan_64", size) for size in (64, 128, 256)),
    *(("pix2pix_facades", size) for size in (256, 512)),
    *(("srgan_photos", size) for size in (96, 192, 512)),
]
"""Shipped configs for a GPU, and sizes that their networks are made for."""
OVERRIDES = {"dcgan_64": ["objective.diffaugment=[]"]}
"""The table's DCGAN is that of pytorch/examples, without augmentation."""
IMAGES = 16
"""Images of a slot."""


def main() -> None:
    """Print a row for each network and size."""
    print("| network | pixels | weights | gradients and moments | activations | with `checkpoint_activations` |")
    print("|---|---|---|---|---|---|")
    for name, size in ROWS:
        spec = load_config(f"configs/{name}.yaml", [f"data.image_size={size}", *OVERRIDES.get(name, ())])
        spec = changed(spec, data__batch_size=IMAGES * spec.slots)
        kept, again = forecast(spec), forecast(changed(spec, train__checkpoint_activations=True))
        cells = [*kept, again.activations]
        label = f"{spec.model.name}, width {spec.model.width}"
        print(f"| {label} | {size} | {' | '.join(f'{cell / 2**30:.2f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
