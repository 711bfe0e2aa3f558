"""A data set as if behind a network: reads are counted, may wait or fail, and may arrive corrupt."""

import threading

from ganrun.data.index import DataSet, open_data
from ganrun.storage import Folder
from ganrun.storage.retry import Traffic


class Wire(Folder):
    """Folder as if behind a network."""

    def __init__(self, path):
        super().__init__(path)
        self.traffic = Traffic()
        self.reads = []
        self.free, self.began = threading.Event(), threading.Semaphore(0)
        self.free.set()
        self.corrupt = {}
        """Number of next reads of a shard that arrive corrupt, by its name."""
        self.fault = None

    def read(self, name, limit=None):
        self.reads.append(name)
        self.began.release()
        self.free.wait()
        if self.fault:
            raise self.fault
        data = super().read(name)
        if self.corrupt.get(name, 0) > 0:
            self.corrupt[name] -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


def behind_wire(folder):
    wire = Wire(folder)
    index = open_data(str(folder)).index
    return DataSet(index, (wire,) * len(index.shards)), wire


def name(shard):
    return f"{shard:06d}.tar"


def bytes_of(data, shards):
    return sum(data.index.shards[shard].bytes for shard in shards)
