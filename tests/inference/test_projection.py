"""Projection: latents whose images are nearest to pictures and to strokes, and `ganrun project`."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun.errors import UserError
from ganrun.games.latent import Latent
from ganrun.inference.latent_spaces import ZSpace
from ganrun.inference.projection import Budget, Search, encoder_of, projector_of
from ganrun.inference.projection_terms import Start, Target, Terms, Weights
from ganrun.inference.sampling import Sampler
from tests.inference.conftest import contrast
from tests.recorded import ganrun

WHOLE, SHORT = torch.ones(1, 32, 32), Budget(steps=20, candidates=3)


@pytest.fixture(scope="module")
def projector(painted):
    return projector_of(Sampler(str(painted["plain"])))


@pytest.fixture(scope="module")
def of_classes(painted):
    return projector_of(Sampler(str(painted["classes"])))


def strokes(seed):
    """Two straight strokes, two pixels wide, [1, 32, 32]."""
    drawn, random = torch.zeros(1, 32, 32), np.random.default_rng(seed)
    for begin, end in random.integers(1, 30, (2, 2, 2)):
        for share in np.linspace(0, 1, 64):
            y, x = (begin + share * (end - begin)).round().astype(int)
            drawn[0, y : y + 2, x : x + 2] = 1
    return drawn


@pytest.fixture(scope="module")
def contrasting(painted):
    return projector_of(contrast(Sampler(str(painted["plain"]))))


def test_strokes_of_a_generated_image_are_found_again(contrasting):
    projector = contrasting
    assert projector.images(projector.space.draw(20, 0), None).std(0).mean() > 0.2
    for seed in range(20):
        before, wanted = projector.space.draw(2, 1_000 + seed)
        images = projector.images(torch.stack([before, wanted]), None)
        target = Target(images[1], strokes(seed))
        found = projector.project(
            Search(target, Weights(), seed, start=Start(before, images[0])), Budget(steps=120, candidates=4)
        )
        first = float(((images[0] - images[1]).abs() * target.drawn).sum() / target.drawn.sum())
        assert float(found.errors[0]) < 0.1 * first, seed


def test_the_same_seed_gives_the_same_candidates_and_the_best_is_first(projector):
    target = Target(projector.images(projector.space.draw(1, 7), None)[0], WHOLE)
    one, two = (projector.project(Search(target, Weights(), 3), SHORT) for _ in range(2))
    assert torch.equal(one.latents, two.latents)
    assert one.losses.tolist() == sorted(one.losses.tolist())
    assert (one.errors <= one.first_errors).all()
    other = projector.project(Search(target, Weights(), 4), SHORT)
    assert not torch.equal(one.latents, other.latents)
    assert (one.steps, one.latents.shape, one.labels) == (20, (3, projector.space.size), None)


def test_steps_time_and_whoever_watches_end_it(projector):
    search = Search(Target(torch.zeros(1, 32, 32), WHOLE), Weights())
    assert projector.project(search, Budget(steps=50, seconds=0.0, candidates=1)).steps == 0
    seen = []

    def watch(step, image):
        seen.append((step, tuple(image().shape)))
        return step < 3

    assert projector.project(search, Budget(steps=50, candidates=2), watch).steps == 3
    assert seen == [(step, (1, 32, 32)) for step in range(4)]


def test_each_term_is_its_formula(projector):
    random = torch.Generator().manual_seed(0)
    x, colours = torch.rand(2, 1, 32, 32, generator=random), torch.rand(1, 32, 32, generator=random)
    latents, drawn = torch.randn(2, 8, generator=random), strokes(1)
    start = Start(torch.zeros(8), torch.zeros(1, 32, 32))
    logits = lambda images, given: images.mean((1, 2, 3))  # noqa: E731

    def loss(**weights):
        terms = Terms(Target(colours, drawn), Weights(**({"colour": 0.0} | weights)), start, logits)
        return terms.losses(latents, x, {})

    count = drawn.sum()
    assert torch.allclose(loss(colour=2.0), 2 * ((x - colours) ** 2 * drawn).sum((1, 2, 3)) / count)
    kept = (x**2 * (1 - drawn)).sum((1, 2, 3)) / (1 - drawn).sum()
    assert torch.allclose(loss(keep=1.0), kept + 0.1 * (latents**2).mean(1))
    assert torch.allclose(loss(realism=1.0), (1 + (-x.mean((1, 2, 3))).exp()).log())
    edges = 0
    for dim in (1, 2):
        both = drawn.narrow(dim, 0, 31) * drawn.narrow(dim, 1, 31)
        of = ((x.diff(dim=dim + 1) - colours.diff(dim=dim)) ** 2 * both).sum((1, 2, 3)) / both.sum()
        edges = edges + of
    assert torch.allclose(loss(edges=1.0), edges)
    x[:, :, drawn[0] > 0] = colours[:, drawn[0] > 0]
    assert loss(perceptual=1.0).abs().max() < 1e-9  # What was not drawn does not count.
    x[0, :, drawn[0] > 0] += 0.5
    assert loss(perceptual=1.0)[0] > 1e-3


def test_the_class_is_searched_or_given(of_classes):
    wanted = of_classes.images(of_classes.space.draw(1, 5), torch.tensor([2]))[0]
    target = Target(wanted, WHOLE)
    found = of_classes.project(Search(target, Weights()), Budget(steps=60, candidates=4))
    assert len(set(found.labels.tolist())) >= 1
    given = of_classes.project(Search(target, Weights(), label=1), SHORT)
    assert given.labels.tolist() == [1, 1, 1]
    # The start of an edit takes the class that suits it best.
    begun = of_classes.project(
        Search(target, Weights(), start=Start(of_classes.space.draw(1, 5)[0], wanted)), Budget(steps=1, candidates=1)
    )
    assert begun.labels.tolist() == [2]
    assert float(begun.errors[0]) < 1e-5


@pytest.mark.parametrize("kind", ["normal", "uniform", "truncated", "hypersphere"])
def test_latents_stay_among_those_of_training(projector, kind):
    space = object.__new__(ZSpace)
    space.latent, space.size = Latent(8, kind), 8
    drawn = Latent(8, kind).draw(projector.space.noise(0), 500, "z")
    far = space.allowed(20 * drawn)
    norms, bound = drawn.norm(dim=1), math.sqrt(8) + 1.5
    inside = norms < bound if kind == "normal" else torch.ones(500, dtype=torch.bool)
    assert torch.allclose(space.allowed(drawn)[inside], drawn[inside], atol=1e-6)
    assert (norms < bound).float().mean() > 0.95
    assert far.norm(dim=1).max() < {"normal": bound, "hypersphere": math.sqrt(8)}.get(kind, math.inf) + 1e-4
    assert far.abs().max() <= {"uniform": 1.0, "truncated": 2.0}.get(kind, math.inf)


def test_the_encoder_gives_a_better_start(painted, projector):
    encode = encoder_of(str(painted["inverse"]), projector)
    latents = projector.space.draw(16, 9)
    images = projector.images(latents, None)
    again = projector.images(torch.stack([encode(image) for image in images]), None)
    random = projector.images(projector.space.draw(16, 10), None)
    assert (again - images).abs().mean() < (random - images).abs().mean()
    target = Target(images[0], WHOLE)
    guess = encode(images[0])
    found = projector.project(Search(target, Weights(), guesses=[guess]), Budget(steps=0, candidates=1))
    assert torch.equal(found.latents[0], guess)
    with pytest.raises(UserError, match="give a run of the game inversion"):
        encoder_of(str(painted["plain"]), projector)


def test_the_command_writes_what_it_found(painted, projector, tmp_path):
    (tmp_path / "in").mkdir()
    levels = ((projector.images(projector.space.draw(1, 3), None)[0, 0] + 1) * 127.5).byte().numpy()
    Image.fromarray(levels).save(tmp_path / "in/cat.png")
    alpha = np.zeros((32, 32), np.uint8)
    alpha[10:14] = 255
    Image.fromarray(np.dstack([levels, levels, levels, alpha]), "RGBA").resize((64, 64), 0).save(
        tmp_path / "in/line.png"
    )
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    options = ["--steps", "40", "--candidates", "3", "--perceptual", "0", "--json"]
    code, said, warned = ganrun(
        "project", painted["plain"], "--input", tmp_path / "in", "--out", tmp_path / "out", *options
    )
    assert (code, "left out: " in warned, "broken.png" in warned) == (0, True, True)
    found = json.loads(said)
    assert sorted(found) == ["cat", "line"]
    for name, about in found.items():
        assert about["error"] < about["first_error"]
        record = json.loads((tmp_path / f"out/{name}.json").read_text())
        assert (record["space"], record["run"], record["label"], len(record["others"])) == ("z", "plain", None, 2)
        image = projector.images(torch.tensor([record["latent"]]), None)[0, 0]
        saved = np.asarray(Image.open(tmp_path / f"out/{name}.png"))
        assert np.abs(saved - ((image + 1) * 127.5).numpy()).max() <= 1
        assert Image.open(tmp_path / f"out/{name}-beside.png").size == (5 * 34 + 2, 36)


def test_the_command_refuses_what_it_cannot_do(painted, tmp_path):
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    Image.new("RGBA", (32, 32)).save(tmp_path / "nothing.png")
    for run, picture, options, words in (
        ("lines", "a", (), "its images are made of what you give it; take `ganrun sample --input`"),
        ("plain", "a", ("--label", "1"), "has no labels"),
        ("plain", "b", (), "no such file or folder"),
        ("plain", "nothing", (), "all of it is transparent"),
        ("classes", "a", ("--label", "3"), "0 to 2"),
        ("inverse", "a", ("--realism", "1"), "realism: this run has no discriminator"),
    ):
        code, _, error = ganrun(
            "project", painted[run], "--input", tmp_path / f"{picture}.png", "--out", tmp_path / "out", *options
        )
        assert (code, words in error) == (2, True), error
    same = ganrun("project", painted["plain"], "--input", tmp_path / "a.png", "--out", tmp_path)
    assert (same[0], "would overwrite" in same[2]) == (2, True)
