"""Config: one YAML file, overrides over it, all faults in one message."""

import json
import subprocess
import sys

import pytest
import yaml

from ganrun.config.keys import differences, is_fixed
from ganrun.config.load import check_names, json_schema, load_config
from ganrun.config.registry import NETWORKS
from ganrun.config.run_spec import RunSpec, resolve
from ganrun.config.schema import Config
from ganrun.config.tunable import with_values
from ganrun.errors import UserError
from tests.conftest import config_of, write_yaml


@pytest.fixture
def file(tmp_path, values):
    return write_yaml(tmp_path / "run.yaml", values)


def faults_of(file, *overrides, **options):
    with pytest.raises(UserError) as caught:
        load_config(file, list(overrides), **options)
    heading, *faults = str(caught.value).split("\n  ")
    assert f"{len(faults)} fault" in heading
    return faults


def test_a_file_becomes_typed_sections(file, values):
    config = load_config(file)
    assert config.run.name == "small"
    assert config.data.batch_size == 12
    assert config.optimizer.generator.beta1 == 0.5
    assert config == config_of(values)


def test_all_faults_come_in_one_message(file):
    faults = faults_of(
        file, "run.seeed=1", "train.total_images=0", "model.name=dcgna", "cluster.workers=x", "optimizer.generator.lr=1"
    )
    assert [fault.split(":")[0] for fault in faults] == [
        "run.seeed",
        "optimizer.generator.lr",
        "train.total_images",
        "cluster.workers",
        "model.name",
    ]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data.batchsize=4", ["data.batchsize", "unknown", "data.batch_size"]),
        ("train.batch_size=4", ["train.batch_size", "unknown", "data.batch_size"]),
        ("dataa.slots=4", ["dataa", "unknown", "mean data?"]),
        ("run.zzz=4", ["run.zzz", "unknown", "name, storage, seed"]),
        ("optimizer.generator.warmup=0", ["optimizer.generator.warmup", "mean optimizer.generator.warmup_images?"]),
        ("train.precision=int8", ["train.precision", "'int8'", "'float32', 'bf16' or 'float64'"]),
        ("model.width=-3", ["model.width", "-3", "greater than or equal to 1"]),
        ("model.width=2.5", ["model.width", "2.5", "integer"]),
        ("objective.loss=hinges", ["objective.loss", "'hinges'", "wasserstein", "mean hinge?"]),
        ("run.name=../up", ["run.name", "'../up'", "letters, digits"]),
        ("data.shards=5", ["data.shards", "5", "a URI or a list of URIs"]),
        ("data.shards=[5]", ["data.shards", "[5]", "a URI or a list of URIs"]),
        ("evaluate.shards=5", ["evaluate.shards", "5", "a URI or a list of URIs"]),
        ("evaluate.held_out_share=1", ["evaluate.held_out_share", "1", "less than 1"]),
        ("evaluate={held_out_share: 0.1, shards: a}", ["evaluate.held_out_share", "0.1", "shards: a", "leave one"]),
        ("data.fields={label: label}", ["data.fields", "image: image"]),
        ("data.image_size=48", ["data.image_size", "48", "16, 32, 64, 128, 256"]),
        ("data.channels=2", ["data.channels", "2", "1 or 3"]),
        ("data.crop=12", ["data.crop", "12", "data.image_size: 16", "data.image_size=12"]),
        ("data.crop=7", ["data.crop", "7", "greater than or equal to 8"]),
        ("data.fields={image: point}", ["data.image_size", "16", "one pixel", "allowed: 1"]),
        ("data.fields={image: vector}", ["data.fields", "image: image"]),
        ("model.name=mlp", ["data.image_size", "16", "mlp", "allowed: 1"]),
        ("model.name=r3gan", ["model.width", "4", "r3gan", "multiples of 8"]),
        ("data.slots=5", ["data.batch_size", "12", "multiple of 5"]),
        ("cluster.workers=7", ["cluster.workers", "7", "data.slots: 6"]),
        ("cluster.cpus_per_worker=.inf", ["cluster.cpus_per_worker", "inf", "finite"]),
        ("model=5", ["model", "5", "a section"]),
        ("run.imports=abc", ["run.imports", "'abc'", "a list"]),
        (
            "objective.penalties={gp: 1}",
            ["objective.penalties", "'gp'", "r1, r2, r1_differences, r2_differences, wgan_gp, wgan_lp, dragan"],
        ),
        ("objective.penalties={r1: 0}", ["objective.penalties.r1", "0", "greater than 0"]),
        ("objective.penalties=r1", ["objective.penalties", "'r1'", "a section of keys and values"]),
        ("objective.diffaugment=[colour]", ["objective.diffaugment", "'colour'", "'color', 'translation' or 'cutout'"]),
        ("objective={loss: hinge, label_smoothing: 0.1}", ["objective.label_smoothing", "loss: hinge", "minimax or"]),
        ("objective={loss: hinge, label_flipping: 0.1}", ["objective.label_flipping", "loss: hinge", "minimax or"]),
        ("objective={loss: wasserstein, ada_target: 0.6}", ["objective.ada_target", "0.6", "wasserstein", "diff"]),
        ("model.classes=3", ["model.classes", "3", "data.fields: {image: image, label: label}"]),
        ("model.latent=cube", ["model.latent", "'cube'", "'hypersphere'"]),
    ],
)
def test_a_fault_names_its_key_its_value_and_what_is_allowed(file, override, parts):
    (fault,) = faults_of(file, override)
    assert fault.startswith(parts[0] + ":")
    for part in parts:
        assert part in fault


def test_only_points_are_of_one_pixel(file):
    (fault,) = faults_of(file, "model.name=mlp", "data.image_size=1")
    assert "data.image_size: 1 is not allowed; it should be: at least 8 pixels" in fault
    points = ["model.name=mlp", "data.image_size=1", "data.channels=2", "data.fields={image: point}"]
    assert load_config(file, points).data.channels == 2
    for key, value in (("held_out_share", "0.1"), ("shards", "other")):
        (fault,) = faults_of(file, *points, f"evaluate.{key}={value}")
        assert fault.startswith(f"evaluate.{key}: {value} is for images; points are scored by the modes")


@pytest.mark.parametrize(
    ("name", "switch", "others"),
    [
        ("r3gan", "spectral_norm", "dcgan, resnet, mlp"),
        ("r3gan", "minibatch_stddev", "dcgan, resnet"),
        ("mlp", "minibatch_stddev", "dcgan, resnet"),
    ],
)
def test_a_switch_that_networks_do_not_have_is_refused_by_name(file, name, switch, others):
    fitting = ["data.image_size=1", "data.fields={image: point}"] if name == "mlp" else ["model.width=8"]
    (fault,) = faults_of(file, f"model.name={name}", f"model.{switch}=true", *fitting)
    # Other tests add networks of their own to the table, after these.
    assert fault.startswith(f"model.{switch}: true does not go with model.name: {name}; it goes with {others}")


def test_missing_keys_are_all_named(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("run: {storage: runs}\ndata: {image_size: 64}\n")
    faults = faults_of(path)
    assert {fault.split(":")[0] for fault in faults} == {"run.name", "data.shards", "train"}


@pytest.mark.parametrize("key", ["my-key", "1", "cluster.workers"])
def test_a_key_that_no_section_could_have_is_a_fault_too(tmp_path, file, key):
    file.write_text(file.read_text() + f"{key}: 3\n")
    (fault,) = faults_of(file)
    assert fault.startswith(f"{key}: unknown key")


def test_contradictions_are_found_beside_wrong_values(file):
    faults = faults_of(file, "cluster.workers=7", "model.width=no")
    assert {fault.split(":")[0] for fault in faults} == {"cluster.workers", "model.width"}


def test_a_wrong_value_is_not_blamed_on_the_keys_that_depend_on_it(file):
    assert len(faults_of(file, "data.slots=many", "cluster.workers=3")) == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [("- a\n", "no sections"), ("run: {name: [\n", "not YAML"), ("run: {name: a}\nrun: {name: b}\n", "duplicate key")],
)
def test_what_is_no_config_is_named_as_such(tmp_path, text, part):
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(UserError, match=part):
        load_config(tmp_path / "odd.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.yaml: no such config file"):
        load_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("override", ["run.name", "=3", "a b=3", "--x=3"])
def test_an_override_is_key_equals_value(file, override):
    with pytest.raises(UserError, match="key=value"):
        load_config(file, [override])


def test_numbers_in_short_notation_are_numbers(tmp_path, file, values):
    file.write_text(file.read_text() + "optimizer: {generator: {learning_rate: 2e-4}}\n")
    config = load_config(file, ["optimizer.discriminator.learning_rate=1e-5", "train.total_images=1e6"])
    assert config.optimizer.generator.learning_rate == 2e-4
    assert config.optimizer.discriminator.learning_rate == 1e-5
    assert config.train.total_images == 1_000_000
    assert isinstance(config.train.total_images, int)


def test_a_mapping_takes_the_place_of_the_file_s(file):
    penalised = ["objective.penalties={r1: 1, r2: 2}"]
    assert load_config(file, [*penalised, "objective.penalties={r1: 3}"]).objective.penalties == {"r1": 3}
    assert load_config(file, [*penalised, "objective.penalties.r1=3"]).objective.penalties == {"r1": 3, "r2": 2}
    assert load_config(file, [*penalised, "objective.penalties={}"]).objective.penalties == {}


def test_overrides_lie_over_the_file_and_the_last_one_wins(file):
    config = load_config(file, ["cluster.workers=2", "model.width=8", "cluster.workers=3", "run.name=other"])
    assert (config.cluster.workers, config.model.width, config.run.name) == (3, 8, "other")
    assert config.data.batch_size == 12


def test_the_environment_is_read(file, monkeypatch):
    monkeypatch.setenv("GANRUN_TEST_PLACE", "there")
    config = load_config(
        file, ["run.storage=${oc.env:GANRUN_TEST_PLACE}/runs", "data.shards=[a,'${oc.env:GANRUN_TEST_PLACE}']"]
    )
    assert config.run.storage == "there/runs"
    assert config.data.shards == ["a", "there"]


def test_one_section_may_stand_for_another(file):
    config = load_config(file, ["optimizer.generator.beta1=0.25", "optimizer.discriminator=${optimizer.generator}"])
    assert config.optimizer.discriminator.beta1 == 0.25


def test_a_variable_that_is_not_set_is_a_fault(file):
    (fault,) = faults_of(file, "run.storage=${oc.env:GANRUN_TEST_UNSET}")
    assert fault.startswith("run.storage: ")
    assert "GANRUN_TEST_UNSET" in fault


@pytest.mark.parametrize(
    "key", ["run.name", "run.storage", "cluster.workers", "data.image_size", "model.name", "optimizer.generator.beta1"]
)
def test_a_dry_run_prints_a_variable_that_is_not_set(file, key, recwarn):
    config = load_config(file, [key + "=${oc.env:GANRUN_TEST_UNSET}", "model.width=2e1"], resolve=False)
    value = yaml.safe_load(config.to_yaml())
    assert value["model"]["width"] == 20
    assert value["optimizer"]["generator"].keys() == value["optimizer"]["discriminator"].keys()
    for part in key.split("."):
        value = value[part]
    assert value == "${oc.env:GANRUN_TEST_UNSET}"
    assert not recwarn.list


def test_a_dry_run_still_finds_other_faults(file):
    faults = faults_of(
        file,
        "run.name=${oc.env:GANRUN_TEST_UNSET}",
        "run.x=${oc.env:GANRUN_TEST_UNSET}",
        "model.width=0",
        resolve=False,
    )
    assert {fault.split(":")[0] for fault in faults} == {"run.x", "model.width"}


def test_the_resolved_config_reads_back_as_itself(tmp_path, file):
    config = load_config(
        file, ["data.shards=[a,b]", "data.fields={image: image, label: label}", "optimizer.generator.epsilon=1e-8"]
    )
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config
    assert Config.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_what_decides_the_mathematics_cannot_change_in_a_run(values):
    before = config_of(values)
    after = config_of(values, model__width=8, cluster__workers=2, run__seed=5, checkpoint__keep=3)
    assert differences(before, after, fixed=True) == {"model.width": (4, 8), "run.seed": (0, 5)}
    assert differences(before, after, fixed=False) == {"cluster.workers": (1, 2), "checkpoint.keep": (9, 3)}


@pytest.mark.parametrize(
    "key",
    ["data.batch_size", "data.slots", "data.fields", "train.precision", "objective.loss", "objective.penalties.r1"],
)
def test_fixed_keys_are_fixed(key):
    assert is_fixed(key)


@pytest.mark.parametrize("key", ["run.name", "train.total_images", "optimizer.generator.learning_rate"])
def test_other_keys_are_free(key):
    assert not is_fixed(key)


def test_names_of_imported_modules_are_checked_after_the_import(file, values, tmp_path, monkeypatch):
    (tmp_path / "mine_for_names.py").write_text(
        "from ganrun.config.registry import NETWORKS, NetworkFamily\n"
        "NETWORKS['my_gan'] = NetworkFamily(print, image_sizes=(32,))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    images, name = faults_of(file, "run.imports=[mine_for_names]", "model.name=my_gam", "train.total_images=0")
    assert images == "train.total_images: 0 is not allowed; it should be: greater than or equal to 1"
    allowed = "dcgan, resnet, r3gan, stylegan2, mlp, "
    assert name.startswith(f"model.name: 'my_gam' is not allowed; it should be one of: {allowed}")
    assert name.endswith("; did you mean my_gan?")
    (fault,) = faults_of(file, "run.imports=[mine_for_names]", "model.name=my_gan")
    assert "data.image_size: 16 does not fit model.name: my_gan; allowed: 32" in fault
    monkeypatch.delitem(NETWORKS.data, "my_gan")
    with pytest.raises(UserError, match=r"model\.name: 'my_gan'"):
        check_names(config_of(values, model__name="my_gan"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import no_such_module_at_all", "mine_{}.py:1: ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("a = 1\nb = {{}}['b']", "mine_{}.py:2: KeyError: 'b'"),
        ("a = 1\nb = (", "mine_{}.py:2: SyntaxError: '(' was never closed"),
        ("import sys\nsys.exit(3)", "mine_{}.py:2: SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_fault_beside_others(file, tmp_path, monkeypatch, text, fault):
    name = f"mine_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text.format())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert faults_of(file, f"run.imports=[{name}]", "train.total_images=0") == [
        f"run.imports: cannot import '{name}': {fault.format(abs(hash(text)))}",
        "train.total_images: 0 is not allowed; it should be: greater than or equal to 1",
    ]
    assert "run.imports: cannot import 'nowhere': No module" in faults_of(file, "run.imports=[nowhere]")[0]


@pytest.mark.parametrize("key", ["objective.penalties.r1", "optimizer.critic.beta1", "tune.perturb_every_images"])
def test_an_unset_variable_stays_where_there_is_no_such_section_yet(file, key):
    *_, last = key.split(".")
    shown = load_config(file, [f"{key}=${{oc.env:NO_SUCH_VARIABLE}}"], resolve=False).to_yaml()
    assert f"{last}: ${{oc.env:NO_SUCH_VARIABLE}}\n" in shown


def test_slots_are_the_workers_unless_said_otherwise(values):
    assert config_of(values, data__slots=None, cluster__workers=3).slots == 3
    assert config_of(values, cluster__workers=3).slots == 6


def test_the_schema_describes_every_key():
    tree = json.loads(json_schema())

    def leaves(node, path):
        if "$ref" in node:
            node = tree["$defs"][node["$ref"].rpartition("/")[2]] | {"description": "a section"}
        if "properties" not in node:
            yield path, node
        for name, part in node.get("properties", {}).items():
            yield from leaves(part, f"{path}.{name}")

    found = dict(leaves(tree, ""))
    assert {".run.name", ".data.shards", ".optimizer.generator.beta1", ".cluster.workers"} <= found.keys()
    assert [path for path, node in found.items() if not node.get("description")] == []
    assert set(tree["required"]) == {"run", "data", "train"}
    assert tree["additionalProperties"] is False


def test_reading_a_config_imports_neither_torch_nor_ray(file):
    code = (
        "import sys; from ganrun.config.load import load_config; load_config(sys.argv[1], ['cluster.workers=2']); "
        "import ganrun.storage, ganrun.run_folder.run_folder, ganrun.cli.preflight; "
        "print([name for name in ('torch', 'ray', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_a_config_file_needs_omegaconf():
    code = (
        "import sys; import ganrun.train, ganrun.tune, ganrun.runs, ganrun.bench; "
        "import ganrun.config.run_spec; print('omegaconf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_resolved_run_has_absolute_paths_and_slots(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values["run"] |= {"storage": "runs", "start_from": "runs/other"}
    values["data"] |= {"shards": ["a", "s3://bucket/b", "package:fashion-mnist-10k"], "slots": None}
    values["evaluate"] = {"extractor": "features.pt", "extractor_weights": "s3://bucket/weights", "shards": "b"}
    spec = resolve(config_of(values, cluster__workers=3))
    assert isinstance(spec, RunSpec)
    assert (spec.run.uri, spec.run.start_from) == (f"{tmp_path}/runs/small", f"{tmp_path}/runs/other")
    assert spec.data.shards == [f"{tmp_path}/a", "s3://bucket/b", "package:fashion-mnist-10k"]
    assert (spec.evaluate.extractor, spec.evaluate.extractor_weights) == (
        f"{tmp_path}/features.pt",
        "s3://bucket/weights",
    )
    assert spec.evaluate.shards == f"{tmp_path}/b"
    assert spec.data.slots == spec.slots == 3
    assert resolve(spec) == spec
    assert isinstance(with_values(spec, {"objective.label_smoothing": 0.1}), RunSpec)


def test_slots_are_the_config_s_then_those_of_the_beginning_then_the_workers(values):
    unset = config_of(values, data__slots=None, cluster__workers=4)
    assert [resolve(config_of(values), 3).slots, resolve(unset, 3).slots, resolve(unset).slots] == [6, 3, 4]
    with pytest.raises(UserError, match=r"data\.batch_size: 12 cannot be cut into .*: 5; take a multiple"):
        resolve(unset, 5)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.fields={image: {kind: image, extnsion: jpg}}", "did you mean data.fields.image.extension?"),
        ("data.fields={image: picture}", "data.fields: 'picture' is not allowed; it should be: 'image', 'label'"),
        ("optimizer.genrator.learning_rate=1e-4", "optimizer.genrator: unknown key; did you mean optimizer.generator?"),
        ("optimizer.encoder.beta3=1", "optimizer.encoder.beta3: unknown key; did you mean optimizer.encoder.beta2?"),
    ],
)
def test_keys_below_names_of_the_users_own_are_checked_too(file, override, fault):
    with pytest.raises(UserError) as caught:
        load_config(file, [override])
    assert fault in str(caught.value)
