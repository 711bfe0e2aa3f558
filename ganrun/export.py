"""Export the EMA generator of a run or a checkpoint to one file, for use without ganrun."""

import argparse
import sys
from pathlib import Path

from ganrun.cli import command
from ganrun.errors import UserError
from ganrun.storage import expand_user

EXAMPLES = """examples:
  ganrun export runs/quickstart --out generator.safetensors     weights, with the config in the metadata
  ganrun export runs/quickstart --out generator.pt2             torch.export program: z [B, Z] to images in [-1, 1]
  ganrun export runs/quickstart --out generator.onnx            the same as ONNX model of opset 18 (extra: onnx)
  ganrun export runs/quickstart --card model                    folder for a model hub: card, weights, samples, scores

A .pt2 program needs only torch:
  generator = torch.export.load("generator.pt2").module()
  images = generator(torch.randn(16, 100))                                  # [16, C, H, W]
  images = generator(torch.randn(16, 100), torch.arange(16) % 10)           # a run with class labels
  images = generator(pictures)                                              # pix2pix: [16, C, H, W] in [-1, 1]
  images = generator(torch.randn(16, 100), embeddings)     # text: [16, 384], each scaled to a mean square of 1
  images = generator(small)                                # super-resolution: [16, C, 16, 16], four times as large
  images = generator(known, mask)                          # inpainting: 0 and mask [16, 1, H, W] 1 in the hole
  images = generator(past)                                 # next frame: [16, 4 C, H, W], the oldest frame first
Draw z from the distribution in model.latent, by default N(0, 1)."""
ENDINGS = (".safetensors", ".pt2", ".onnx")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("export", __doc__, EXAMPLES)
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="folder of a run, or of one of its checkpoints")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="FILE", help="file that ends in .safetensors, .pt2 or .onnx")
    where.add_argument("--card", metavar="DIR", help="new folder: the checkpoint with a model card")
    return command.run(command.parse(parser, arguments), _main)


def _main(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out or options.card))
    if options.out and out.suffix not in ENDINGS:
        raise UserError(f"--out {out}: unsupported ending; use {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if options.card:
        from ganrun.inference.model_card import write_card

        write_card(options.run, out)
    else:
        from ganrun.inference import exporting
        from ganrun.inference.sampling import Sampler

        writers = (exporting.write_weights, exporting.write_program, exporting.write_onnx)
        dict(zip(ENDINGS, writers, strict=True))[out.suffix](Sampler(options.run), out)
    print(out)
    return command.OK


if __name__ == "__main__":
    sys.exit(main())
