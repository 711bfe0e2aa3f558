"""A data set whose samples can be identified: the text field of each is its key."""

import hashlib
import io
import tarfile
from pathlib import Path

from ganrun.config.schema import Config
from ganrun.data.index import Index, Shard
from ganrun.data.order import Order
from ganrun.data.shard import read_samples
from ganrun.storage import open_storage
from tests.conftest import SIZES
from tests.data.test_order import walk

FIELDS = {"image": "image", "text": "text"}
"""Value of `data.fields` that reads the keys."""
History = dict[tuple[int, int], list[str]]
"""(images, slot) -> the keys shown there."""


def upload_with_keys(folder: Path, uri: str) -> None:
    """Upload the small data set to a bucket, with the key of each sample as its text."""
    storage, shards = open_storage(uri), []
    index = Index.from_json((folder / "index.json").read_bytes(), "index")
    for shard in index.shards:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, members in read_samples((folder / shard.name).read_bytes(), shard.name):
                for extension, content in (members | {"txt": memoryview(key.encode())}).items():
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        storage.write(shard.name, file.getvalue())
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        shards.append(Shard(shard.name, shard.samples, len(file.getvalue()), digest))
    storage.write("index.json", Index(16, 1, index.classes, tuple(shards)).to_json())


def what_order_says(config: Config) -> History:
    """Return the sample keys of each (images, slot) that a run over the small data set must read."""
    slots, turn = config.slots, config.data.batch_size
    order, turns = Order(SIZES, slots, config.run.seed, config.data.shuffle_shards), config.train.total_images // turn
    before = [sum(SIZES[:shard]) for shard in range(len(SIZES))]
    shown, share = {}, turn // slots
    for slot in range(slots):
        keys = [f"{before[shard] + number:06d}" for shard, number in walk(order, slot, 0, turns * share)]
        for number in range(turns):
            shown[number * turn, slot] = keys[number * share : (number + 1) * share]
    return shown
