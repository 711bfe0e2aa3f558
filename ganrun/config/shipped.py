"""Configs that travel with the package: their names, what each is for, and the file of a name."""

import difflib
from pathlib import Path

FOLDER = Path(__file__).parent / "files"
"""In a checkout a link to configs/."""


def purposes() -> dict[str, str]:
    """Return what each config is for, by name: the first sentence of its header."""
    return {path.stem: _purpose(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))}


def find(name: str) -> Path | None:
    """Return the file of a shipped config, named with or without `.yaml`; None if there is none."""
    path = FOLDER / (name if "." in name else f"{name}.yaml")
    return path if Path(name).name == name and path.is_file() else None


def hint(name: str) -> str:
    """Return a message for a config that does not exist: the nearest shipped one, and the command that lists all."""
    near = difflib.get_close_matches(Path(name).stem, [path.stem for path in FOLDER.glob("*.yaml")], n=1)
    return f"{f'did you mean {near[0]}? ' if near else ''}ganrun configs lists those that travel with ganrun"


def _purpose(text: str) -> str:
    lines = [line.removeprefix("#").strip() for line in text.splitlines()[1:] if line.startswith("#")]
    paragraph = " ".join(lines[: lines.index("")])
    ends = [place for place in range(len(paragraph)) if paragraph[place : place + 2] == ". "]
    sentence = next((paragraph[:place] for place in ends if paragraph[place + 2].isupper()), paragraph)
    return sentence.removesuffix(".")
