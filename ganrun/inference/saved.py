"""Networks in storage: those of a checkpoint, or weights that `ganrun export` wrote, with their config."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from ganrun.config.load import parse
from ganrun.config.schema import Config
from ganrun.errors import RunError, UserError
from ganrun.games.game import Game
from ganrun.run_folder.run_folder import find_checkpoint
from ganrun.storage import Storage, open_storage
from ganrun.training import checkpoint
from ganrun.training.tensor_files import differences, first_of, parse_tensors

WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class SavedCheckpoint:
    """Networks of a checkpoint.

    Attributes:
        storage: of the run, or the folder that the checkpoint is in.
        directory: of the checkpoint, below it.
    """

    storage: Storage
    directory: str

    @property
    def config(self) -> Config:
        """Config of the checkpoint.

        Raises:
            RunError: it is corrupt.
        """
        files = checkpoint.read(self.storage, self.directory, only=("config.yaml",))
        return parse(files["config.yaml"], f"{self.storage.uri}/{self.directory}/config.yaml")

    @property
    def embedding(self) -> dict[str, Any] | None:
        """The encoder of the captions that the run was trained on; None without captions."""
        recorded: dict[str, Any] | None = checkpoint.read_manifest(self.storage, self.directory).get("embedding")
        return recorded

    def load(self, game: Game) -> Game:
        """Return the game with its networks loaded, with EMA weights where there are any.

        Raises:
            RunError: a file is corrupt or missing, or of another network.
        """
        for name, network in game.networks.items():
            file = f"{name}_ema" if name in game.averaged else name
            checkpoint.load_network(self.storage, self.directory, file, network)
        return game


@dataclass(frozen=True)
class ExportedWeights:
    """EMA weights in one file, with the config in its metadata."""

    storage: Storage
    name: str

    @property
    def config(self) -> Config:
        """Config of the run that the weights are of.

        Raises:
            UserError: the file was not written by `ganrun export`.
        """
        try:  # safetensors: 8 bytes of length, a JSON header, then the tensors.
            header = json.loads(self._data[8 : 8 + int.from_bytes(self._data[:8], "little")])
            return Config.model_validate_json(header["__metadata__"]["config"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self._where}: no config of ganrun in its metadata ({reason}); give a file of ganrun export, a run "
                "or a checkpoint"
            ) from error

    @property
    def embedding(self) -> dict[str, Any] | None:
        """The encoder of the captions that the run was trained on; None without captions."""
        recorded: dict[str, Any] | None = self._recorded("embedding")
        return recorded

    def _recorded(self, key: str) -> Any:
        """Return a value of the metadata; None if it is not there."""
        header = json.loads(self._data[8 : 8 + int.from_bytes(self._data[:8], "little")])
        return json.loads(header["__metadata__"].get(key, "null"))

    def load(self, game: Game) -> Game:
        """Return the game with the networks of the file, loaded: those that samples are drawn from.

        Raises:
            RunError: the file is corrupt, or of other networks than its config describes.
        """
        tensors = parse_tensors(self._data, self._where)
        # Files of older versions have the averaged networks, and do not name them.
        networks = {name: game.networks[name] for name in self._recorded("networks") or game.averaged}
        for name, network in networks.items():
            own = tensors if len(networks) == 1 else _below(f"{name}.", tensors)
            if faults := differences(own, network.state_dict()):
                raise RunError(
                    f"{self._where} is of another network than its config describes: {first_of(faults)}; "
                    "export it again"
                )
            network.load_state_dict(own)
        return replace(game, networks=networks)

    @cached_property
    def _data(self) -> bytes:
        return self.storage.read(self.name)

    @property
    def _where(self) -> str:
        return f"{self.storage.uri}/{self.name}"


def find_saved(where: str) -> SavedCheckpoint | ExportedWeights:
    """Find networks.

    Args:
        where: URI of a run, for its newest checkpoint, of a checkpoint, of a file of `ganrun export`, or of a folder
            with one such file.

    Raises:
        UserError: it is none of these.
    """
    place = where.rstrip("/")
    if place.endswith(WEIGHTS):
        parent, _, name = place.rpartition("/")
        storage = open_storage(parent or ".")
        if name not in storage.list():
            raise UserError(f"{where}: no such file; give a file of ganrun export, a run or a checkpoint")
        return ExportedWeights(storage, name)
    names = open_storage(place).list()
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if weights and not {"manifest.json", "latest.json"} & set(names):  # Neither a checkpoint nor a run.
        if len(weights) > 1:
            raise UserError(f"{where}: {len(weights)} files of weights, {', '.join(weights[:3])}; name one of them")
        return ExportedWeights(open_storage(place), weights[0])
    return SavedCheckpoint(*find_checkpoint(where))


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
