"""Samples, exports that work without ganrun, and runs that start from another run."""

import json
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ganrun import export, sample
from ganrun.errors import UserError
from ganrun.inference.sampling import Sampler, slerp
from tests.conditional import conditional
from tests.conftest import config_of
from tests.ranks import latest_tensors, run_folder, run_ranks, work_rank
from tests.waiting import WAIT


@pytest.fixture
def run(values, tmp_path):
    config = config_of(values, train__precision="float32", train__total_images=60)
    run_ranks(config, 1, tmp_path / "meeting")
    return run_folder(config)


@pytest.fixture
def labelled(values, tmp_path):
    """A run of a conditional game."""
    config = config_of(conditional(values), train__precision="float32", train__total_images=60)
    run_ranks(config, 1, tmp_path / "meeting")
    return run_folder(config)


def pixels(path):
    return torch.tensor(list(Image.open(path).getdata()))


def test_the_same_seed_gives_the_same_images(run, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert sample.main([str(run), "--out", str(tmp_path / f"{name}.png"), "--count", "9", "--seed", str(seed)]) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
    assert Image.open(tmp_path / "a.png").size == (3 * 18 + 2, 3 * 18 + 2)


def test_single_images_do_not_depend_on_how_many_are_drawn(run, tmp_path):
    assert sample.main([str(run), "--out", str(tmp_path / "few"), "--count", "3"]) == 0
    assert sample.main([str(run), "--out", str(tmp_path / "many"), "--count", "70"]) == 0
    assert [len(list((tmp_path / name).iterdir())) for name in ("few", "many")] == [3, 70]
    for path in (tmp_path / "few").iterdir():
        assert (pixels(path) - pixels(tmp_path / "many" / path.name)).abs().max() <= 1  # batches of other sizes round


def test_an_interpolation_has_its_ends_and_keeps_the_norm():
    begin, end = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    walk = slerp(begin, end, 5)
    torch.testing.assert_close(walk[0], begin)
    torch.testing.assert_close(walk[-1], end)
    torch.testing.assert_close(walk.norm(dim=1), torch.full((5,), 3.0))


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 0.5, 3.14159, torch.pi])
def test_an_interpolation_is_finite_and_within_its_ends_at_any_angle(angle):
    begin = torch.tensor([3.0, 0.0])
    end = 2 * torch.tensor([torch.tensor(angle).cos(), torch.tensor(angle).sin()])
    walk = slerp(begin, end, 9)
    torch.testing.assert_close(walk[0], begin)
    torch.testing.assert_close(walk[-1], end, atol=1e-5, rtol=0)
    assert walk.norm(dim=1).max() <= 3 + 1e-5


@pytest.mark.parametrize(("begin", "end"), [([1.5], [-0.5]), ([1.5], [1.5]), ([0.0], [2.0]), ([0.0, 0.0], [1.0, 2.0])])
def test_an_interpolation_is_linear_where_there_is_no_great_circle(begin, end):
    begin, end = torch.tensor(begin), torch.tensor(end)
    share = torch.linspace(0, 1, 5)[:, None]
    torch.testing.assert_close(slerp(begin, end, 5), begin + share * (end - begin))


@pytest.mark.parametrize(("start", "count"), [(0, 3), (60, 10), (63, 1), (64, 70), (130, 5)])
def test_noise_does_not_depend_on_how_much_is_drawn(run, start, count):
    sampler = Sampler(str(run))
    assert torch.equal(sampler.z(start, count, 5), sampler.z(0, 192, 5)[start : start + count])


def test_a_checkpoint_is_sampled_like_its_run(run, tmp_path):
    (checkpoint,) = (run / "checkpoints").iterdir()
    for where, name in ((run, "run"), (checkpoint, "checkpoint")):
        assert sample.main([str(where), "--out", str(tmp_path / f"{name}.png"), "--interpolate", "--count", "16"]) == 0
    assert (tmp_path / "run.png").read_bytes() == (tmp_path / "checkpoint.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["{tmp}/none", "--out", "{tmp}/a.png"], 2, "neither a run with a checkpoint nor a checkpoint"),
        (["{run}", "--out", "{tmp}/folder", "--grid"], 2, "give a .png file"),
    ],
)
def test_a_wrong_request_is_one_clear_line(run, tmp_path, capsys, arguments, code, reason):
    assert sample.main([part.format(tmp=tmp_path, run=run) for part in arguments]) == code
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_a_corrupt_generator_is_named(run, tmp_path, capsys):
    (file,) = run.glob("checkpoints/*/generator_ema.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert sample.main([str(run), "--out", str(tmp_path / "a.png")]) == 1
    assert "generator_ema.safetensors is corrupt" in capsys.readouterr().err


PROGRAM = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'ganrun': raise ImportError('ganrun is not here')
sys.meta_path.insert(0, Refuse())
import torch
from safetensors.torch import load_file, save_file
generator = torch.export.load({program!r}).module()
made = generator(load_file({noise!r})['z'])
assert not made.requires_grad
save_file({{'images': made}}, {images!r})
"""

WEIGHTS = """
import json, sys, torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from ganrun.models.dcgan import Generator
with safe_open({weights!r}, 'pt') as file: config = json.loads(file.metadata()['config'])
generator = Generator(config['data']['image_size'], config['data']['channels'], config['model']['width'], 8).eval()
generator.load_state_dict(load_file({weights!r}))
assert not {{'ganrun.training.loop', 'ganrun.training.state', 'ganrun.training.checkpoint', 'ray'}} & sys.modules.keys()
save_file({{'images': generator(load_file({noise!r})['z'])}}, {images!r})
"""


@pytest.mark.parametrize(("ending", "script"), [("pt2", PROGRAM), ("safetensors", WEIGHTS)])
def test_an_export_gives_the_same_images_in_a_process_without_the_training_code(run, tmp_path, ending, script):
    out, noise, images = (str(tmp_path / name) for name in (f"g.{ending}", "z", "images"))
    assert export.main([str(run), "--out", out]) == 0
    sampler = Sampler(str(run))
    z = sampler.z(0, 5, seed=3)
    save_file({"z": z}, noise)
    code = script.format(program=out, weights=out, noise=noise, images=images)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(load_file(images)["images"], sampler.images(z, {}), rtol=0, atol=1e-6)


# Labels.


def cells(path, columns, size=16):
    """The images of a grid, a list of rows."""
    image = torch.tensor(list(Image.open(path).convert("L").getdata())).view(Image.open(path).size[::-1])
    rows = (image.shape[0] - 2) // (size + 2)
    corner = [[(2 + row * (size + 2), 2 + column * (size + 2)) for column in range(columns)] for row in range(rows)]
    return [[image[y : y + size, x : x + size].double() for y, x in row] for row in corner]


def test_a_grid_of_a_conditional_run_has_a_class_in_each_column(labelled, tmp_path):
    for name, options in (("all", []), *((str(label), ["--label", str(label)]) for label in range(3))):
        assert sample.main([str(labelled), "--out", str(tmp_path / f"{name}.png"), "--count", "9", *options]) == 0
    every = cells(tmp_path / "all.png", 3)
    for label in range(3):
        for row, one in zip(every, cells(tmp_path / f"{label}.png", 3), strict=True):
            assert torch.equal(row[label], one[label])  # the same noise in the same place
    shown = cells(next((labelled / "samples").glob("*60.png")), 3)
    assert len(shown) == 22  # 64 images in columns of 3 classes
    shade = Sampler(str(labelled)).game.networks["generator"].shade.weight.argsort(dim=0).flatten().tolist()
    for grid in (every, shown[:-1]):
        means = [torch.stack([row[column] for row in grid]).mean().item() for column in range(3)]
        assert sorted(range(3), key=means.__getitem__) == shade


def test_single_images_and_walks_take_a_label(labelled, tmp_path):
    assert sample.main([str(labelled), "--out", str(tmp_path / "some"), "--count", "5", "--label", "2"]) == 0
    sampler = Sampler(str(labelled), label=2)
    (images,) = sampler.draw(5, seed=0)
    torch.testing.assert_close(images, sampler.images(sampler.z(0, 5, 0), {"label": torch.full((5,), 2)}))
    assert len(list((tmp_path / "some").iterdir())) == 5
    walk = ["--interpolate", "--count", "24", "--out"]
    assert sample.main([str(labelled), *walk, str(tmp_path / "walk.png")]) == 0
    assert sample.main([str(labelled), *walk, str(tmp_path / "walk1.png"), "--label", "1"]) == 0
    each, ones = (cells(tmp_path / f"{name}.png", 8) for name in ("walk", "walk1"))
    assert [all(torch.equal(a, b) for a, b in zip(*rows, strict=True)) for rows in zip(each, ones, strict=True)] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(("which", "label", "reason"), [("labelled", "3", "are 0 to 2"), ("run", "0", "has no labels")])
def test_a_label_that_is_not_there_is_one_clear_line(request, tmp_path, capsys, which, label, reason):
    folder = request.getfixturevalue(which)
    assert sample.main([str(folder), "--out", str(tmp_path / "a.png"), "--label", label]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_an_exported_program_of_a_conditional_run_takes_labels(labelled, tmp_path):
    assert export.main([str(labelled), "--out", str(tmp_path / "g.pt2")]) == 0
    sampler = Sampler(str(labelled))
    z, label = sampler.z(0, 5, seed=3), torch.tensor([2, 0, 1, 1, 2])
    program = torch.export.load(tmp_path / "g.pt2").module()
    torch.testing.assert_close(program(z, label), sampler.images(z, {"label": label}), rtol=0, atol=1e-6)


FIXED = """
from torch import nn
from ganrun.extend import NETWORKS

class Fixed(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 256)
    def forward(self, z, label=None):
        if fixed and %s:
            return self.layer(z).reshape(fixed, 1, 16, 16)
        return self.layer(z).unflatten(1, (1, 16, 16))

fixed = 0
NETWORKS["fixed"] = lambda model, data: {
    "generator": Fixed(model.latent_size), "discriminator": NETWORKS["dcgan"](model, data)["discriminator"]
}
"""


@pytest.mark.parametrize(
    ("condition", "reason"), [("len(z) == 2", "fixed batch size; take it"), ("z.sum() > 0", r"mine_\w+\.py:10: ")]
)
def test_a_network_that_torch_cannot_export_is_one_clear_line(values, tmp_path, monkeypatch, capfd, condition, reason):
    name = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(FIXED % condition)
    monkeypatch.syspath_prepend(tmp_path)
    values["run"]["imports"], values["model"]["name"] = [name], "fixed"
    config = config_of(values, train__precision="float32", train__total_images=60)
    run_ranks(config, 1, tmp_path / "meeting")
    monkeypatch.setattr(sys.modules[name], "fixed", 2)
    capfd.readouterr()
    assert export.main([str(run_folder(config)), "--out", str(tmp_path / "g.pt2")]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"ganrun: --out {tmp_path}/g.pt2: model.name: fixed cannot be exported as a program (")
    assert re.search(reason, error)
    assert error.count("\n") == 1


def test_an_export_of_another_ending_is_refused(run, tmp_path, capsys):
    assert export.main([str(run), "--out", str(tmp_path / "g.pickle")]) == 2
    assert "unsupported ending; use .safetensors, .pt2 or .onnx" in capsys.readouterr().err


def test_a_run_begins_with_the_weights_of_another(run, values, tmp_path):
    before = latest_tensors(config_of(values))
    config = config_of(
        values,
        run__name="fork",
        run__start_from=str(run),
        train__precision="float32",
        train__total_images=12,
        optimizer__generator={"learning_rate": 1e-30},
        optimizer__discriminator={"learning_rate": 1e-30},
    )
    run_ranks(config, 1, tmp_path / "meeting2")
    after = latest_tensors(config)
    for name, tensor in before.items():
        if name.startswith(("generator/", "discriminator/")) and "weight" in name:
            torch.testing.assert_close(after[name], tensor, msg=name)


def test_what_does_not_fit_is_named(run, values, tmp_path):
    config = config_of(
        values, run__name="wider", run__start_from=str(run), model__latent_size=9, train__total_images=12
    )
    work_rank(0, config, 1, "", None)
    (file,) = (run_folder(config) / "events").iterdir()
    events = [json.loads(line) for line in file.read_text().splitlines()]
    (event,) = [event for event in events if event["kind"] == "start_from"]
    before, now = (f"[{latent_size}, 8, 4, 4]" for latent_size in (8, 9))
    names = ("generator.layers.0.weight", "generator_ema.layers.0.weight")
    assert event["unfit"] == [f"{name} is {before}, not {now}" for name in names]


def test_where_nothing_fits_the_first_shapes_are_named(run, values):
    config = config_of(values, run__name="none", run__start_from=str(run), model__width=6, train__total_images=12)
    shapes = r"generator\.layers\.0\.weight is \[8, 8, 4, 4\], not \[8, 12, 4, 4\]"
    with pytest.raises(UserError, match=rf"nothing in .* fits.*: {shapes}, .* more; set"):
        work_rank(0, config, 1, "", None)


MODULE = """
from torch import nn
from ganrun.games.gan import gan
from ganrun.games.losses import AdversarialLoss
from ganrun.config.registry import GAMES, LOSSES, NETWORKS

class Flat(nn.Module):
    def __init__(self, sizes, shape=None):
        super().__init__()
        self.layer, self.shape = nn.Linear(*sizes), shape
    def forward(self, x, label=None):
        y = self.layer(x.flatten(1))
        return y.tanh().unflatten(1, self.shape) if self.shape else y.flatten()

def flat(model, data):
    shape = (data.channels, data.image_size, data.image_size)
    pixels = shape[0] * shape[1] * shape[2]
    return {"generator": Flat((model.latent_size, pixels), shape), "discriminator": Flat((pixels, 1))}

def twice(networks, objective, model):
    game = gan(networks, objective, model)
    game.players[1].turns = 2
    return game

NETWORKS["flat"] = flat
def huber(real, fake):
    return nn.functional.huber_loss(real, real * 0 + 1) + fake.abs().mean()

LOSSES["huber"] = AdversarialLoss(huber, lambda fake: -fake.mean())
GAMES["twice"] = twice
"""


def test_networks_losses_and_games_of_the_users_own_module(values, tmp_path, monkeypatch):
    (tmp_path / "mine_for_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    values["run"]["imports"] = ["mine_for_a_test"]
    values["model"]["name"] = "flat"
    values["objective"] = {"game": "twice", "loss": "huber"}
    config = config_of(values, train__total_images=60)
    run_ranks(config, 1, tmp_path / "meeting")
    tensors = latest_tensors(config)
    assert tensors["generator/layer.weight"].shape == (256, 8)
    steps = {name: tensor.item() for name, tensor in tensors.items() if name.endswith(".step")}
    assert steps["optimizer_generator/generator.layer.weight.step"] == 10
    assert steps["optimizer_discriminator/discriminator.layer.weight.step"] == 5


SPARE = """
import torch
from torch import nn
from ganrun.games.game import Game, Loss, Player
from ganrun.games.latent import Latent
from ganrun.config.registry import GAMES

class Encoder(Player):
    name = "encoder"
    def forward(self, batch, draw, others):
        return Loss((self.owned["encoder"].layer(batch["image"].flatten(1)) - 1).square().mean(), {})

def encoding(networks, objective, model):
    encoder = nn.Module()
    encoder.layer, encoder.spare = nn.Linear(256, 1), nn.Parameter(torch.zeros(3))
    encoder.tied = encoder.layer
    return Game({"encoder": encoder}, (Encoder(encoder=encoder),), (), Latent(8), lambda networks, z, label: z)

GAMES["encoding"] = encoding
"""


def test_a_player_of_another_name_with_weights_unused_and_tied_resumes(values, tmp_path, monkeypatch):
    (tmp_path / "spare_for_a_test.py").write_text(SPARE)
    monkeypatch.syspath_prepend(tmp_path)
    values["run"]["imports"] = ["spare_for_a_test"]
    values["objective"] = {"game": "encoding"}
    values["optimizer"] = {"encoder": {"learning_rate": 1e-2}}
    values["telemetry"] = {"sample_images": 4}
    monkeypatch.setattr("ganrun.worker.sample_picture.to_picture", lambda *_: None)  # z is no picture
    whole, parts = config_of(values, run__name="whole"), config_of(values, run__name="parts")
    run_ranks(whole, 1, tmp_path / "whole")
    run_ranks(parts, 1, tmp_path / "first", stop_at=120)
    run_ranks(parts, 1, tmp_path / "second")
    tensors, expected = latest_tensors(parts), latest_tensors(whole)
    assert "encoder/tied.weight" in tensors
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, expected[name])] == []
