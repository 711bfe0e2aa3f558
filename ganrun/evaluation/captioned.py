"""Renders pictures with a caption below those of each sample, as one PNG."""

import io
from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ganrun.errors import escaped

GAP, FONT, LINE, LINES = 4, 11, 13, 3
"""Pixels between samples, size of the letters, height of a line, and most lines of a caption."""


def captioned_png(
    images: Tensor,
    captions: Sequence[str],
    columns: int,
    facts: Mapping[str, str] | None = None,
    smallest: int = 0,
) -> bytes:
    """Render images as a grid of samples, with the caption of each sample below its pictures.

    Args:
        images: [samples x pictures, C, H, W] in [-1, 1], those of a sample in a row.
        captions: caption of each sample.
        columns: samples in a row of the grid.
        facts: provenance, stored as text chunks of the PNG.
        smallest: pixels a side that smaller images are enlarged to, by whole factors.
    """
    each, size = len(images) // len(captions), images.shape[-1]
    tile = size * max(1, -(-smallest // size))
    levels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    font, width = ImageFont.load_default(FONT), each * tile
    texts = [list(_lines(caption, width, font)) for caption in captions]
    rows = -(-len(captions) // columns)
    high = [max(len(text) for text in texts[row * columns : (row + 1) * columns]) * LINE for row in range(rows)]
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, sum(high) + rows * (tile + 2 * GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(texts):
        row, column = divmod(number, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (tile + 2 * GAP) + sum(high[:row])
        for place in range(each):
            picture = Image.fromarray(pixels[number * each + place]).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + place * tile, top))
        for line, words in enumerate(text):
            pen.text((left, top + tile + line * LINE), words, "black", font)
    chunks, file = PngInfo(), io.BytesIO()
    for name, value in (facts or {}).items():
        chunks.add_text(name, value)
    sheet.save(file, "png", pnginfo=chunks)
    return file.getvalue()


def _lines(caption: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    """Yield a caption in lines of at most `width` pixels; what does not fit into LINES ends with an ellipsis."""
    words = escaped(" ".join(caption.split())).split(" ")
    for line in range(LINES):
        text = words.pop(0)
        while words and font.getlength(f"{text} {words[0]}") <= width:
            text += f" {words.pop(0)}"
        if font.getlength(text) > width or (words and line == LINES - 1):
            while text and font.getlength(f"{text}…") > width:
                text = text[:-1]
            text += "…"
        yield text
        if not words:
            return
