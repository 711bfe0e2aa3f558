"""Draw images from the EMA generator of a run or a checkpoint."""

import argparse
import sys
from pathlib import Path

from ganrun.cli import command
from ganrun.cli.arguments import not_negative
from ganrun.errors import UserError
from ganrun.storage import expand_user

EXAMPLES = """examples:
  ganrun sample runs/quickstart --out grid.png --grid             64 images in one PNG
  ganrun sample runs/quickstart --out pictures --count 1000       a folder with 1,000 PNGs
  ganrun sample runs/quickstart --out walk.png --interpolate      8 interpolations of 8 images, one per row
  ganrun sample runs/digits --out threes.png --label 3            one class; without --label one class per column
  ganrun sample runs/stylegan2-64 --out faces.png --truncation 0.7    of stylegan2: fewer odd images, less variety
  ganrun sample runs/pix2pix-fluent --input drawing.png --out coloured           your own picture: coloured/drawing.png
  ganrun sample runs/pix2pix-fluent --input drawings --out coloured --count 3    3 images for each picture of a folder
  ganrun sample runs/inpainting-fluent --input photo.png --mask hole.png --out filled
  ganrun sample runs/next-frame-moving-fashion --input clip.gif --frames 10 --out predicted
  ganrun sample runs/inpainting-fluent --input photos --mask holes --out filled      masks by the names of the pictures
  ganrun sample runs/gain-letter --input table.csv --out filled.csv                empty cells of a table
  ganrun sample runs/text-to-image-fluent --text "red apple" --text "happy cat" --out grid.png     a row a sentence
  ganrun sample runs/text-to-image-fluent --texts sentences.txt --out drawn          a file each, of a sentence a line
  ganrun sample runs/text-to-image-fluent --text sun --text moon --interpolate --out between.png
  ganrun sample runs/quickstart/checkpoints/000000150016-0001 --out old.png --grid --seed 7

RUN stands for its newest checkpoint. The same seed gives the same images."""


TRUNCATION = "of stylegan2: 1 draws as trained (default), less draws images nearer to the mean one, 0 that one alone"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
UNUSED = ("label", "mask", "resize", "count", "truncation")
"""Options that a clip or a table has no use for, beside those of generated images."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = command.parse(_parser(), arguments)
    if options.text or options.texts:
        return command.run(options, _illustrate)
    if options.input is None:
        return command.run(options, _main)
    if options.frames:
        return command.run(options, _predict)
    return command.run(options, _fill if options.input.lower().endswith(".csv") else _translate)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("sample", __doc__, EXAMPLES)
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="folder of a run, or of one of its checkpoints")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE_OR_DIR",
        help="a .png file for a grid, or a folder for single images; for a table a .csv",
    )
    parser.add_argument(
        "--count",
        type=_count,
        metavar="N",
        help="number of images (default: 64; with --input 1 for each picture, with --text 4 for each sentence)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default: %(default)s)")
    parser.add_argument("--label", type=int, metavar="K", help="class of all images (default: all classes in turn)")
    parser.add_argument("--truncation", type=not_negative, metavar="PSI", help=TRUNCATION)
    parser.add_argument("--grid", action="store_true", help="all images in one PNG (implied if --out is a .png file)")
    parser.add_argument(
        "--interpolate",
        action="store_true",
        help="rows of 8 images between two random z (slerp), or from each sentence of --text to the next, where "
        "--count is the number of rows",
    )
    parser.add_argument(
        "--text", action="append", metavar="SENTENCE", help="what the images are to show; several times for several"
    )
    parser.add_argument("--texts", metavar="FILE", help="the sentences of a file, one a line")
    parser.add_argument(
        "--input",
        metavar="PICTURE_OR_FOLDER",
        help="your own picture of any size to translate, or all below a folder; or a .csv with empty cells; with "
        "--frames a video, a GIF or a folder of frames",
    )
    parser.add_argument(
        "--mask",
        metavar="FILE_OR_FOLDER",
        help="hole in the picture of --input: white is filled, black is kept; or a folder with one for each picture "
        "under its name (default: drawn)",
    )
    parser.add_argument(
        "--frames", type=_count, metavar="N", help="frames to predict after the clip of --input, with a GIF"
    )
    parser.add_argument(
        "--resize", action="store_true", help="translate --input at the run's image size, and scale the results back"
    )
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give at least 1")
    return count


def _main(options: argparse.Namespace) -> int:
    if given := [name for name in ("resize", "mask", "frames") if getattr(options, name)]:
        raise UserError(f"--{given[0]}: is for pictures of --input; give one, or leave it out")
    out, count = Path(expand_user(options.out)), options.count or 64
    single = out.suffix.lower() == ".png"
    if out.suffix and not single:
        raise UserError(f"--out {out}: unsupported ending; give a .png file, or a folder for single images")
    if (options.grid or options.interpolate) and not single:
        raise UserError(f"--out {out}: --grid and --interpolate write one picture; give a .png file")
    from tqdm import tqdm

    from ganrun.evaluation.generated_images import BATCH
    from ganrun.inference.sampling import Sampler, draw_grid, draw_singles

    sampler = Sampler(options.run, options.label)
    if options.truncation is not None:
        sampler = sampler.truncated(options.truncation)
    if sampler.pairs is not None and count > sampler.pairs.samples:
        held_out = f"{sampler.pairs.samples:,} samples that conditions are made of"
        print(f"--count {count}: there are {held_out}, so they repeat", file=sys.stderr)
    if (passes := sampler.game.sample_passes) > 1:
        name = sampler.config.model.name
        print(f"{name}: {passes:,} passes, one after the other, for each {BATCH} images ...", file=sys.stderr)
    with tqdm(total=count, unit=" images", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()) as bar:

        def seen(images: int) -> None:
            bar.update(images)

        if single:
            draw_grid(sampler, out, count, options.seed, options.interpolate, seen)
        else:
            draw_singles(sampler, out, count, options.seed, seen)
    print(out)
    return command.OK


def _illustrate(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out))
    _refuse(options, "--text, which needs no picture", "input", "mask", "resize", "frames", "label", "truncation")
    single = out.suffix.lower() == ".png"
    if (out.suffix and not single) or ((options.grid or options.interpolate) and not single):
        raise UserError(f"--out {out}: give a .png file for a grid, or a folder for single images")
    from ganrun.inference.sampling import Sampler
    from ganrun.inference.sentences import Illustrator
    from ganrun.preparation.own_pictures import read_sentences

    illustrator = Illustrator(Sampler(options.run), options.seed)
    texts = [*(options.text or ()), *(read_sentences(options.texts, "--texts") if options.texts else ())]
    sentences, faults = illustrator.usable(texts)
    if options.interpolate:
        illustrator.write_interpolations(sentences, options.count or 1, out)
    else:
        write = illustrator.write_grid if single else illustrator.write_singles
        write(sentences, options.count or 4, out)
    for line in faults:
        print(f"left out: {line}", file=sys.stderr)
    print(out)
    return command.OK


def _translate(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out))
    _refuse(options, "--input, which writes a file for each image", "grid", "interpolate", "label", "truncation")
    if out.suffix.lower() in IMAGE_ENDINGS or out.is_file():
        raise UserError(f"--out {out}: with --input it is a folder, for a file under the name of each picture")
    from ganrun.inference.sampling import Sampler
    from ganrun.inference.translation import Translator
    from ganrun.preparation.own_pictures import find_own, masks_by_name, read_own

    pictures, left_out = find_own(options.input, "--input")
    for name, path in pictures.items():
        if (out / f"{name}.png").resolve() == path.resolve():
            raise UserError(f"--out {out}: would overwrite {path}; name another folder")
    mask_of = masks_by_name(options.mask) if options.mask else lambda name: None
    translator, faults = Translator(Sampler(options.run), options.seed, options.resize), []
    for name, path in pictures.items():
        try:
            pixels, mask = read_own(path, "--input"), mask_of(name)
            translator.write(f"--input {path}", pixels, out, name, options.count or 1, mask)
        except UserError as error:
            faults.append(error)
    if len(faults) == len(pictures):
        raise faults[0]
    for line in (*left_out, *faults):
        print(f"left out: {line}", file=sys.stderr)
    print(out)
    return command.OK


def _predict(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out))
    _refuse(options, "--frames, which writes a file for each image", "grid", "interpolate", *UNUSED)
    if out.suffix or out.is_file():
        raise UserError(f"--out {out}: with --frames it is a folder, for the frames and a GIF")
    if Path(expand_user(options.input)).resolve() in (out.resolve(), out.resolve() / "clip.gif"):
        raise UserError(f"--out {out}: would overwrite {options.input}; name another folder")
    from ganrun.inference.predicting import Predictor
    from ganrun.inference.sampling import Sampler
    from ganrun.preparation.own_pictures import read_clip

    predictor = Predictor(Sampler(options.run))
    clip = read_clip(options.input, "--input", predictor.frames, predictor.size, predictor.channels)
    predictor.write(f"--input {options.input}", clip, options.frames, options.seed, out)
    print(out)
    return command.OK


def _fill(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out))
    _refuse(options, "a table of --input, which is filled once", "grid", "interpolate", *UNUSED)
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out {out}: the filled table is a .csv; give such a file")
    from ganrun.inference.filling import Filler
    from ganrun.inference.sampling import Sampler, write_file
    from ganrun.preparation.table import read_table

    where = f"--input {options.input}"
    if Path(expand_user(options.input)).resolve() == out.resolve():
        raise UserError(f"--out {out}: would overwrite {options.input}; name another file")
    table = read_table(options.input, where)
    filled = Filler(Sampler(options.run), where).filled(table.values, table.names, options.seed)
    write_file(out, table.with_missing(filled).encode())
    print(out)
    return command.OK


def _refuse(options: argparse.Namespace, beside: str, *names: str) -> None:
    """Refuse options that have no effect beside another one."""
    for name in names:
        if getattr(options, name) is not None and getattr(options, name) is not False:
            raise UserError(f"--{name}: does not go with {beside}; leave it out")


if __name__ == "__main__":
    sys.exit(main())
