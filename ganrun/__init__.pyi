from ganrun.api.dataset import Dataset as Dataset
from ganrun.api.run import Run as Run
from ganrun.api.run import load as load
from ganrun.train import train as train
from ganrun.tune import tune as tune

__version__: str

MOVED: dict[str, str]
