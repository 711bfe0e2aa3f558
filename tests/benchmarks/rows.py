"""What the pages of compared models have in common: a row a model, trained and scored once, and kept as a file."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.inference.sampling import write_image

Row = dict[str, Any]


class Rows(NamedTuple):
    """The rows of a page.

    Attributes:
        folder: where each row has NAME.json and NAME.png.
        names: of all rows, in their order on the page.
    """

    folder: Path
    names: Sequence[str]

    def file(self, name: str, ending: str) -> Path:
        """Return the file of a row. Its name has no blanks, commas, slashes or apostrophes."""
        return self.folder / f"{slug(name)}{ending}"

    def make(self, only: Iterable[str] | None, make_row: Callable[[str], Row], write_page: Callable[[], None]) -> None:
        """Make the rows that are asked for and missing, and the page after each, so that nothing is made twice."""
        wanted = set(only or self.names)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (each for each in self.names if each in wanted):
            if not (file := self.file(name, ".json")).exists():
                file.write_text(json.dumps(make_row(name), indent=1) + "\n")
            write_page()

    def read(self) -> dict[str, Row]:
        """Return the rows that are there."""
        return {
            name: json.loads(file.read_text()) for name in self.names if (file := self.file(name, ".json")).exists()
        }


def slug(name: str) -> str:
    """Return the name of a row as that of a file."""
    return "-".join(name.replace("'", "").replace("/", " ").replace(",", "").split())


def parser(module: str, names: Iterable[str]) -> argparse.ArgumentParser:
    """Return the parser of the options that all pages have."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{module}")
    parser.add_argument("--runs", default="runs", help="storage of the runs (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=tuple(names), metavar="NAME", help="rows to make (default: all)")
    return parser


def train(config: str, overrides: Sequence[str]) -> str:
    """Train a run, or resume it; return its folder."""
    command = [sys.executable, "-m", "ganrun.train", config, *overrides]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1].strip()


@contextmanager
def as_files(images: Tensor) -> Iterator[str]:
    """Write images [N, C, H, W] in [-1, 1] as PNG files; give their folder, which is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(to_uint8(images)):
            write_image(Path(folder, f"{number:06d}.png"), image)
        yield folder
