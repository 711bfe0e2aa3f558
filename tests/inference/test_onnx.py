"""ONNX models give the images of the run in a process with neither torch nor ganrun; what ONNX lacks is one line."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from ganrun import export
from ganrun.inference.exporting import OPSET
from ganrun.inference.sampling import Sampler
from tests.conditional import conditional
from tests.conftest import config_of
from tests.ranks import run_folder, run_ranks
from tests.waiting import WAIT

ONNX = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('ganrun', 'torch'): raise ImportError(f'{{name}} is not here')
sys.meta_path.insert(0, Refuse())
import numpy, onnxruntime
session = onnxruntime.InferenceSession({model!r})
inputs = dict(numpy.load({inputs!r}))
for count in (1, 5):
    (images,) = session.run(["images"], {{name: value[:count] for name, value in inputs.items()}})
    numpy.save(f"{folder}/{{count}}.npy", images)
"""


def train(values, tmp_path):
    config = config_of(values, train__precision="float32", train__total_images=12)
    run_ranks(config, 1, tmp_path / "meeting")
    return str(run_folder(config))


@pytest.mark.parametrize("labels", [False, True])
def test_an_onnx_model_gives_the_images_of_the_run_for_any_batch(values, tmp_path, labels):
    run = train(conditional(values) if labels else values, tmp_path)
    assert export.main([run, "--out", str(tmp_path / "g.onnx")]) == 0
    model = onnx.load(tmp_path / "g.onnx")
    assert [each.version for each in model.opset_import if not each.domain] == [OPSET]
    assert {each.key for each in model.metadata_props} == {"ganrun", "config"}
    sampler = Sampler(run)
    z, given = sampler.z(0, 5, seed=3), {"label": torch.tensor([2, 0, 1, 1, 2])} if labels else {}
    inputs = {"z": z, **given}
    assert [each.name for each in model.graph.input] == list(inputs)
    assert all(each.type.tensor_type.shape.dim[0].dim_param == "batch" for each in model.graph.input)
    np.savez(tmp_path / "inputs.npz", **{name: value.numpy() for name, value in inputs.items()})
    code = ONNX.format(model=str(tmp_path / "g.onnx"), inputs=str(tmp_path / "inputs.npz"), folder=tmp_path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    expected = sampler.images(z, given).numpy()
    for count in (1, 5):
        np.testing.assert_allclose(np.load(tmp_path / f"{count}.npy"), expected[:count], rtol=0, atol=1e-4)


OWN = """
import torch
from torch import nn
from ganrun.extend import NETWORKS

class Bessel(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 256)
    def forward(self, z, label=None):
        made = self.layer(z).unflatten(1, (1, 16, 16))
        return torch.special.bessel_j0(made) if trained else made

trained = False
NETWORKS["bessel"] = lambda model, data: {
    "generator": Bessel(model.latent_size), "discriminator": NETWORKS["dcgan"](model, data)["discriminator"]
}
"""


def test_an_operator_that_onnx_lacks_is_one_line(values, tmp_path, monkeypatch, capfd):
    (tmp_path / "bessel_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    values["run"]["imports"], values["model"]["name"] = ["bessel_of_a_test"], "bessel"
    run = train(values, tmp_path)
    monkeypatch.setattr(sys.modules["bessel_of_a_test"], "trained", True)
    capfd.readouterr()
    assert export.main([run, "--out", str(tmp_path / "g.onnx")]) == 2
    assert capfd.readouterr().err == (
        f"ganrun: --out {tmp_path}/g.onnx: model.name: bessel cannot be exported to ONNX (ONNX has no operator for "
        "prims.bessel_j0); export .pt2 instead\n"
    )
    assert export.main([run, "--out", str(tmp_path / "g.pt2")]) == 0


def test_without_the_package_the_extra_is_named(values, tmp_path, monkeypatch, capfd):
    run = train(values, tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert export.main([run, "--out", str(tmp_path / "g.onnx")]) == 2
    assert capfd.readouterr().err.endswith("g.onnx: onnxscript is missing: pip install 'ganrun[onnx]'\n")
