"""The game `likelihood` as a run: rounds that can be replayed, worker counts, resume, tiny rounds, scores."""

import json

import pytest
import torch

from ganrun.config.run_spec import resolve
from ganrun.data.index import open_data
from ganrun.evaluation.bits_per_dimension import BitsPerDimension
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import ScoreSubject
from ganrun.games.build import build_game
from ganrun.training import tiny_round
from tests.densities.densities import IMAGES, noise_of
from tests.densities.runs import run_config
from tests.ranks import Ranks, latest_tensors, run_folder, run_ranks
from tests.training.test_replay import check
from tests.worker.test_equality import check_equality

CPU = torch.device("cpu")
DROPPING = {"made": 0.2, "pixelcnn": 0.2, "vae": 0.2}
"""Densities that drop out units."""


@pytest.mark.parametrize("name", IMAGES)
def test_a_round_of_each_density_reads_all_that_varies_from_fixed_memory(name, values):
    config = run_config(
        values, name, data__slots=2, train__total_images=100_000, model__dropout=DROPPING.get(name, 0.0)
    )
    check(config)


def test_a_density_is_the_same_on_any_number_of_workers_stopped_or_not(values, tmp_path):
    def config_for(name, run):
        return run_config(values, name, run__name=f"{name}-{run}", model__dropout=DROPPING.get(name, 0.0))

    # A fit by EM, ActNorm layers set by data, dropout, latents.
    check_equality(config_for, ("mixture", "glow", "pixelcnn", "vae"), tmp_path)
    for name in ("mixture", "glow"):  # The first weights are those of the data.
        config = config_for(name, "whole-1")
        untrained = build_game(config, CPU).networks["density"].state_dict()
        key = "density/means" if name == "mixture" else "density/sequence.layers.1.shift"
        assert not torch.equal(latest_tensors(config)[key], untrained[key.partition("/")[2]])


@pytest.mark.parametrize("name", IMAGES)
def test_validate_plays_a_tiny_round_of_each_density(name, values):
    spec = resolve(run_config(values, name))
    data = open_data(spec.data.shards, crop=spec.data.crop)
    assert "density; drew samples, saved the state, resumed from it" in tiny_round.play(spec, data)


@pytest.mark.parametrize("name", IMAGES)
def test_the_loss_is_the_mean_of_the_negative_log_likelihood_by_number(name, values):
    game = build_game(run_config(values, name), CPU)
    images = torch.randint(0, 256, (4, 1, 8, 8)).double() / 127.5 - 1
    noise = noise_of()
    loss = game.players[0]({"image": images}, noise, {})
    density = game.networks["density"]
    expected = -density.log_prob(images, noise.under("density")).mean() / 64
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.parts["bits"], expected / torch.log(torch.tensor(2.0, dtype=torch.float64)))
    assert loss.total > 0  # Probabilities of images are at most 1.


def subject_of(values, group=None):
    config = run_config(values, "glow")
    game = build_game(config, CPU)
    for network in game.networks.values():
        network.eval()
    data = open_data(config.data.shards, crop=config.data.crop)
    reals = RealImages(data, 141, config.data.fields)
    return ScoreSubject(GeneratedImages(game, game.networks, 0), 141, None, reals, group=group)


def test_bits_per_dimension_are_those_of_the_density_and_the_same_on_any_number_of_ranks(values):
    score = BitsPerDimension()
    alone = score.start(subject_of(values))["powers"]
    parts = [score.start(subject_of(values, Ranks(rank, 2)))["powers"] for rank in range(2)]
    torch.testing.assert_close(sum(parts), alone, rtol=0, atol=1e-9)
    assert parts[0][0] == 77  # The first and the last of three chunks: 64 and 13.
    found = score.result({"powers": alone}, None)
    subject = subject_of(values)
    images = torch.stack([subject.reals.images(number, 1)[0] for number in range(64)]).double() / 127.5 - 1
    noise = subject.generated.noise(0, 64).under("bits_per_dimension")
    bits = -subject.generated.game.networks["density"].log_prob(images, noise) / 64 / torch.log(torch.tensor(2.0))
    other = score.start(ScoreSubject(subject.generated, 141, None, subject.reals, group=Ranks(0, 3)))["powers"]
    assert float(other[1]) == pytest.approx(float(bits.sum()), abs=1e-4)
    assert 0 < found["bits_per_dimension_deviation"] < found["bits_per_dimension"]
    assert score.about(subject) == "upper bound (uniform dequantisation), n=141 training samples"


def test_a_run_scores_bits_of_held_out_samples_with_their_provenance(values, tmp_path, extractor, capsys):
    from ganrun.evaluate import main

    values["evaluate"] = {
        "every_images": 60,
        "samples": 20,
        "held_out_share": 0.2,
        "extractor": str(extractor),
        "metrics": ["bits_per_dimension"],
        "best": {"metric": "bits_per_dimension"},
    }
    config = run_config(values, "made", train__total_images=120, evaluate__where="workers")
    run_ranks(config, 1, tmp_path / "meeting")
    lines = [json.loads(line) for file in (run_folder(config) / "metrics").iterdir() for line in file.open()]
    scored = {line["images"]: line["bits_per_dimension"] for line in lines if "bits_per_dimension" in line}
    assert set(scored) >= {60, 120}
    assert scored[120] < scored[60] < 12
    assert json.loads((run_folder(config) / "best.json").read_text())["score"] == scored[120]
    assert main([str(run_folder(config)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_dimension"] == pytest.approx(scored[120], abs=1e-6)
    assert found["bits_per_dimension_is"] == "exact, n=20 held-out samples"
    assert found["held_out"] == "evaluate.held_out_share=0.2"
