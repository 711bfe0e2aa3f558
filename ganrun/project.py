"""Find the latents of a run whose images are nearest to your pictures, or to strokes."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganrun.cli import command
from ganrun.cli.arguments import not_negative, positive
from ganrun.errors import UserError, escaped
from ganrun.storage import expand_user

if TYPE_CHECKING:
    from ganrun.inference.projection import Candidates, Search

EXAMPLES = """examples:
  ganrun project runs/quickstart --input shirt.png --out found         found/shirt.png and found/shirt.json
  ganrun project runs/quickstart --input photos --out found --json     all pictures of a folder; the result as JSON
  ganrun project runs/digits --input seven.png --out found --label 7   of one class; else the best class is searched
  ganrun project runs/quickstart --input shirt.png --out found --encoder runs/invert-quickstart
  ganrun project runs/stylegan2-64 --input face.png --out found --space w+

For each picture: NAME.png, the image found; NAME.json, its latent, class and errors, and those of all candidates;
NAME-beside.png: the picture, the image that the search began with, the image found, the other candidates.
A picture with transparency is strokes: what is transparent may look like anything. The same seed gives the same
latents, unless --seconds ends the search."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("project", __doc__, EXAMPLES)
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="folder of a run, or of one of its checkpoints")
    parser.add_argument("--input", required=True, metavar="PICTURES", help="a picture, or a folder with pictures")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--label", type=int, metavar="K", help="class of the images (default: the best is searched)")
    parser.add_argument(
        "--space",
        choices=("z", "w", "w+"),
        help="latents to search: z, or of stylegan2 w, or w+, a w for each layer, which can come nearer and may leave "
        "what the run draws (default: w where there is one)",
    )
    parser.add_argument("--encoder", metavar="RUN", help="run of the game inversion, whose encoder gives a start")
    parser.add_argument("--candidates", type=positive, default=8, metavar="N", help="starts (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=200, metavar="N", help="steps (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=not_negative,
        default=60.0,
        metavar="S",
        help="most for a picture (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the starts (default: %(default)s)")
    for name, default, what in (
        ("edges", 0.0, "edges: differences between neighbouring pixels"),
        ("perceptual", None, "the distance of features of EfficientNet-Lite0 (default: 0.1; 0 below 32 pixels)"),
        ("realism", 0.0, "the discriminator's opinion"),
    ):
        shown = what if default is None else f"{what} (default: {default})"
        parser.add_argument(f"--{name}", type=not_negative, default=default, metavar="W", help=f"weight of {shown}")
    parser.add_argument("--json", action="store_true", help="print the errors as JSON, not in words")
    return command.run(command.parse(parser, arguments), _main)


def _main(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out))
    if out.is_file() or out.suffix.lower() in (".png", ".json"):
        raise UserError(f"--out {out}: it is a folder, for files under the name of each picture")
    from ganrun.inference.projection import Budget, Search, encoder_of, limit_threads, projector_of
    from ganrun.inference.projection_terms import Weights
    from ganrun.inference.sampling import Sampler
    from ganrun.preparation.own_pictures import find_own, read_drawing

    pictures, left_out = find_own(options.input, "--input")
    for name, path in pictures.items():
        if path.resolve() in ((out / f"{name}.png").resolve(), (out / f"{name}-beside.png").resolve()):
            raise UserError(f"--out {out}: would overwrite {path}; name another folder")
    if options.encoder and options.space not in (None, "z"):
        raise UserError(f"--space {options.space}: --encoder {options.encoder} gives a z to begin with; leave one out")
    sampler = Sampler(options.run, options.label)
    projector = projector_of(sampler, "z" if options.encoder else options.space)
    channels, size, _ = projector.shape
    limit_threads(size)
    given = {name: getattr(options, name) for name in ("edges", "perceptual", "realism")}
    weights = Weights.of_size(size, **{name: value for name, value in given.items() if value is not None})
    budget = Budget(options.steps, options.seconds, options.candidates)
    encode = encoder_of(options.encoder, projector) if options.encoder else None
    of = sampler.config.run.name, projector.space.name
    found: dict[str, Any] = {}
    faults = []
    for name, path in pictures.items():
        try:
            target = projector.target(*read_drawing(path, f"--input {path}", size, channels))
            guesses = [encode(target.colours)] if encode and target.drawn.all() else []
            search = Search(target, weights, options.seed, options.label, guesses=guesses)
            found[name] = _write(out, name, *of, search, projector.project(search, budget))
        except UserError as error:
            faults.append(error)
            continue
        if not options.json:
            print(f"{escaped(name)}: error {found[name]['first_error']:.4f} before, {found[name]['error']:.4f} after")
    if not found:
        raise faults[0]
    for line in (*left_out, *faults):
        print(f"left out: {line}", file=sys.stderr)
    print(json.dumps(found) if options.json else out)
    return command.OK


def _write(out: Path, name: str, run: str, space: str, search: "Search", found: "Candidates") -> dict[str, Any]:
    """Write the files of a picture, and return its errors, steps, and paths."""
    import torch

    from ganrun.evaluation.feature_statistics import to_uint8
    from ganrun.evaluation.pictures import to_png
    from ganrun.inference.paint.painters import latent_record
    from ganrun.inference.sampling import write_file, write_image

    records = [
        latent_record(run, space, found.latents, found.labels, at)
        | {"error": float(found.errors[at]), "first_error": float(found.first_errors[at])}
        for at in range(len(found.latents))
    ]
    write_image(out / f"{name}.png", to_uint8(found.images)[0])
    write_file(out / f"{name}.json", json.dumps(records[0] | {"others": records[1:]}).encode())
    drawn = search.target.drawn * search.target.colours + (1 - search.target.drawn)
    beside = torch.cat([drawn[None], found.first_images[:1], found.images])
    write_file(out / f"{name}-beside.png", to_png(beside, columns=len(beside)))
    about = {key: records[0][key] for key in ("first_error", "error", "label")}
    return about | {"steps": found.steps, "image": str(out / f"{name}.png"), "latent": str(out / f"{name}.json")}


if __name__ == "__main__":
    sys.exit(main())
