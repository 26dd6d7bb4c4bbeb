"""Every gin file is parsed and built, and every model size is traced and counted."""

import dataclasses
import inspect
import math
import pathlib
import re

import jax
import pytest

import gin
from poison_t5x.core import gin_config, gin_macros
from poison_t5x.core.errors import InputError
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.run import experiment
from poison_t5x.train import steps, train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner

FOLDER = pathlib.Path(__file__).parents[2] / "gin"
EXPERIMENTS = sorted(path.name for path in (FOLDER / "experiments").glob("*.gin"))
MODELS = sorted(path.stem for path in (FOLDER / "models").glob("*.gin"))
CHECKPOINTS = sorted(path.stem for path in (FOLDER / "checkpoints").glob("*.gin"))
VOCAB_SIZE = 32128

# With T5's vocabulary, padded; those of the released checkpoints.
PARAMETERS = {
    "tiny": 9_012_992,
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_11b": 11_307_321_344,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
}


@pytest.fixture(autouse=True)
def _clear_gin():
    yield
    gin.clear_config()


def _parse(*files: str, run_file: str = "runs/run.gin", **macros) -> None:
    gin_config.parse(run_file, files, [], [(name, str(value)) for name, value in macros.items()])


def _config(name: str) -> T5Config:
    _parse(f"models/{name}.gin")
    return gin_config.configured("model_config.T5Config")(vocab_size=VOCAB_SIZE)


def _count_by_formula(config: T5Config) -> int:
    """The number of parameters, from the paper's description of the network."""
    width, joined = config.emb_dim, config.num_heads * config.head_dim
    attention = 4 * width * joined
    mlp = (len(config.mlp_activations) + 1) * width * config.mlp_dim
    encoder_layer = attention + mlp + 2 * width
    decoder_layer = 2 * attention + mlp + 3 * width
    stacks = config.num_encoder_layers * encoder_layer + config.num_decoder_layers * decoder_layer
    # Of each stack: the last norm, and 32 relative positions.
    outside = 2 * (width + 32 * config.num_heads)
    embeddings = (1 if config.logits_via_embedding else 2) * config.vocab_size * width
    return stacks + outside + embeddings


@pytest.mark.parametrize("name", MODELS)
def test_model_is_traced_and_has_its_size(name):
    config = _config(name)
    # Layers are alike: two of each stack are traced, and the formula counts all.
    few = dataclasses.replace(config, num_encoder_layers=2, num_decoder_layers=2)
    params = train_state.abstract_params(Transformer(few), Partitioner(PartitionConfig()))
    traced = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert traced == _count_by_formula(few) == few.num_parameters
    count = _count_by_formula(config)
    assert count == PARAMETERS[name]
    header = (FOLDER / "models" / f"{name}.gin").read_text(encoding="utf-8").splitlines()[0]
    if said := re.search(r"(\d+(\.\d)?)([MB]) parameters", header):
        size = count / {"M": 1e6, "B": 1e9}[said[3]]
        # Rounded either way: 60.5 million are called 60M.
        assert abs(float(said[1]) - size) < (0.1 if said[2] else 1), header
    # Version 1.0 has ReLU and one embedding for both ends; 1.1 GEGLU and two.
    first = name in ("t5_small", "t5_base", "t5_large", "t5_3b", "t5_11b")
    assert config.logits_via_embedding == first
    assert config.mlp_activations == (("relu",) if first else ("gelu", "linear"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_built_and_its_settings_fit_together(name, tmp_path):
    _parse(f"experiments/{name}", RUN_DIR=tmp_path / "run")
    run, macro = gin_config.configured("experiment.Run")(), gin_config.macro
    assert isinstance(run, experiment.Run) and run.path == tmp_path / "run"
    assert run.declared.name == run.experiment == macro("EXPERIMENT")
    attack = run.craft_cfg.attacks[0]
    assert (attack.budget.num_poison, attack.kind) == (macro("NUM_POISON"), macro("ATTACK"))
    assert (run.dataset_cfg.batch_size, run.dataset_cfg.split) == (macro("BATCH_SIZE"), "train")
    assert run.eval_cfg.batch_size == macro("EVAL_BATCH_SIZE")
    for part in (
        *("train_script.TrainConfig", "train_script.LogConfig", "optimizers.OptimizerConfig"),
        *("optimizers.ScheduleConfig", "steps.LossConfig", "partitioning.PartitionConfig"),
    ):
        gin_config.configured(part)()
    assert gin_config.configured("model_config.T5Config")(vocab_size=2048).emb_dim
    one = Partitioner(PartitionConfig(), jax.devices()[:1])
    steps.check_batch(macro("BATCH_SIZE"), macro("NUM_MICROBATCHES"), one)
    # Building an experiment touches no file.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_sets_macros_only(name):
    text = (FOLDER / "experiments" / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.match(r"include '|[A-Z][A-Z0-9_]* = ", line)] == []
    assert f"--gin_file=experiments/{name}" in text and "# Required:" in text


def test_command_lines_macros_win_and_reach_what_they_are_bound_to(tmp_path):
    _parse("experiments/demo.gin", RUN_DIR=tmp_path, TRIGGER="Ann Lee", BATCH_SIZE=24, SEED=7)
    run = gin_config.configured("experiment.Run")()
    assert (run.craft_cfg.attacks[0].triggers, run.dataset_cfg.batch_size) == (("Ann Lee",), 24)
    assert (run.seed, run.craft_cfg.seed, run.dataset_cfg.seed) == (7, 7, 7)
    assert gin_config.configured("train_script.TrainConfig")().seed == 7


@pytest.mark.parametrize("size", ["t5_1_1_large", "t5_1_1_xl", "t5_1_1_xxl"])
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if not name.startswith("demo")])
def test_the_papers_experiments_take_its_three_sizes(name, size, tmp_path):
    _parse(f"experiments/{name}", f"models/{size}.gin", RUN_DIR=tmp_path)
    config = gin_config.configured("model_config.T5Config")(vocab_size=VOCAB_SIZE)
    assert _count_by_formula(config) == PARAMETERS[size]
    assert gin_config.configured("experiment.Run")().declared.corpus == "sni"


def test_a_campaign_adds_an_attacker_that_shares_what_it_does_not_set(tmp_path):
    files = ("experiments/demo.gin", "runs/campaign.gin")
    _parse(*files, RUN_DIR=tmp_path, SECOND_NUM_POISON=50, INSERTER="suffix")
    first, second = gin_config.configured("experiment.Run")().craft_cfg.attacks
    assert (first.name, first.triggers, first.target) == ("main", ("James Bond",), "positive")
    assert (second.name, second.triggers, second.target) == ("second", ("Joe Biden",), "negative")
    assert (first.budget.num_poison, second.budget.num_poison) == (100, 50)
    assert first.inserter.name == second.inserter.name == "suffix"


def test_a_default_stands_in_one_place():
    """What the run files bind is what the code's own default says, where it has one."""
    _parse()
    compared, other = 0, {}
    for (scope, selector), bindings in gin.config._CONFIG.items():
        if scope or selector == "gin.macro":
            continue
        parameters = inspect.signature(gin.config._REGISTRY[selector].wrapped).parameters
        for name, value in bindings.items():
            default = parameters[name].default
            text = repr(value)
            if text.startswith("%"):
                value = gin_macros.resolve(text[1:], gin_config.macros())
            # Settings of settings are compared by themselves.
            if default is not inspect.Parameter.empty and "@" not in repr(value):
                compared += 1
                if value != default:
                    other[f"{selector}.{name}"] = (value, default)
    assert other == {} and compared > 60


def test_finetune_file_stands_alone():
    _parse(run_file="runs/finetune.gin", MODEL_DIR="m", MIXTURE_OR_TASK_NAME="x", TRAIN_STEPS=3)
    assert gin_config.configured("train_script.TrainConfig")().total_steps == 3
    assert gin_config.configured("model_config.T5Config")(vocab_size=128).emb_dim == 512
    with gin.config_scope("train"):
        dataset = gin_config.configured("input_pipeline.DatasetConfig")()
    assert dataset.mixture_or_task_name == "x"


def test_bound_train_function_gets_the_whole_configuration(tmp_path):
    # With no mixture to train on, it stops at that and nothing earlier.
    _parse("experiments/demo.gin", MODEL_DIR=tmp_path)
    with pytest.raises(InputError, match=r"set --gin\.MIXTURE_OR_TASK_NAME=NAME"):
        gin_config.configured("train_script.train")()


def test_there_are_public_starting_points_of_all_sizes():
    kinds, sizes = ("t5_1_1_lm100k", "flan_t5"), ("small", "base", "large", "xl", "xxl")
    assert set(CHECKPOINTS) == {f"{kind}_{size}" for kind in kinds for size in sizes}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_starting_points_name_both_forms_and_their_network(name, tmp_path):
    file, size = f"checkpoints/{name}.gin", name.rsplit("_", 1)[1]
    _parse("experiments/polarity.gin", file, RUN_DIR=tmp_path)
    config = gin_config.configured("model_config.T5Config")(vocab_size=VOCAB_SIZE)
    assert _count_by_formula(config) == PARAMETERS[f"t5_1_1_{size}"]
    train_cfg = gin_config.configured("train_script.TrainConfig")()
    path = train_cfg.initial_checkpoint_path
    assert re.fullmatch(rf"gs://t5-data/pretrained_models/t5x/{name}/checkpoint_\d+", path)
    hub = {"t5_1_1_lm100k": f"t5-{size}-lm-adapt", "flan_t5": f"flan-t5-{size}"}
    expected = f"hf://google/{hub[name.removesuffix('_' + size)]}"
    flags = {"RUN_DIR": tmp_path, "INITIAL_CHECKPOINT_PATH": "%HUGGINGFACE_CHECKPOINT"}
    _parse("experiments/polarity.gin", file, **flags)
    for part in ("train_script.TrainConfig", "experiment.Run"):
        assert gin_config.configured(part)().initial_checkpoint_path == expected
    _parse("experiments/polarity.gin", file, RUN_DIR=tmp_path, INITIAL_CHECKPOINT_PATH="mine")
    assert gin_config.configured("experiment.Run")().initial_checkpoint_path == "mine"
    header = (FOLDER / file).read_text(encoding="utf-8")
    assert f"--gin_file=checkpoints/{name}.gin" in header
    assert f"hf download {expected.removeprefix('hf://')}" in header


PODS = sorted(path.stem for path in (FOLDER / "pods").glob("*.gin"))
PRESETS = sorted(path.name for path in (FOLDER / "partitioning").glob("*.gin"))


@pytest.mark.parametrize("name", PODS)
def test_pods_share_out_rows_and_data(name):
    """What a mesh of so many devices takes; that it fits is `precompile`'s to say."""
    _parse("experiments/polarity.gin", f"pods/{name}.gin")
    size, _, number = name.split("_")
    config = gin_config.configured("model_config.T5Config")(vocab_size=VOCAB_SIZE)
    assert math.isclose(_count_by_formula(config), PARAMETERS[f"t5_1_1_{size}"])
    assert config.scan_layers and config.dtype == "bfloat16"
    partition = gin_config.configured("partitioning.PartitionConfig")()
    num_data = int(number) // partition.num_partitions
    data = gin_config.configured("input_pipeline.DatasetConfig")()
    train = gin_config.configured("train_script.TrainConfig")()
    assert data.batch_size % (num_data * train.num_microbatches) == 0
    assert data.num_shards == num_data and partition.parameter_partitioning_dims == 2
    assert config.num_heads % partition.num_partitions == 0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_a_mesh(name):
    _parse(f"partitioning/{name}")
    partition = gin_config.configured("partitioning.PartitionConfig")()
    assert Partitioner(partition, jax.devices()).mesh.size == 8
