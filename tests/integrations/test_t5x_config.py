"""With T5X installed: what the gin files give its programs, part by part."""

import dataclasses
import inspect
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seqio

import gin

with warnings.catch_warnings():
    # T5X's own, and those of what it imports.
    warnings.simplefilter("ignore")
    pytest.importorskip("t5x", reason="T5X isn't installed (launch/t5x.sh installs it)")
    from t5x import adafactor, decoding, models, partitioning, utils
    from t5x import eval as t5x_eval
    from t5x import infer as t5x_infer
    from t5x import optimizers as t5x_optimizers
    from t5x import train as t5x_train

from poison_t5x.core.errors import InputError
from poison_t5x.data import input_pipeline
from poison_t5x.integrations import t5x as t5x_engine
from poison_t5x.run import experiment
from poison_t5x.train import optimizers as our_optimizers
from poison_t5x.train import partitioning as our_partitioning
from tests.integrations import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore")
FOLDER = pathlib.Path(__file__).parents[2] / "gin"
FILES = sorted(path.stem for path in (FOLDER / "t5x").glob("*.gin") if path.stem != "base")
CONDITIONS = ("clean", "triggered", "control")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tiny_run.craft(tmp_path_factory.mktemp("with_t5x") / "run")


@pytest.fixture(autouse=True)
def _as_in_t5xs_programs(monkeypatch):
    monkeypatch.setattr(gin.config, "_LOCATION_PREFIXES", ["", str(FOLDER)])
    gin.clear_config()
    with jax.numpy_dtype_promotion("standard"):  # T5X mixes dtypes
        yield
    gin.clear_config()


def _parse(name: str, run_dir: pathlib.Path, **macros) -> None:
    bindings = {**macros, "RUN_DIR": str(run_dir)}
    gin.parse_config_files_and_bindings(
        [f"t5x/{name}.gin"], [f"{key} = {value!r}" for key, value in bindings.items()]
    )


def _parse_tiny(run_dir: pathlib.Path, **macros) -> None:
    lengths = {"inputs": 168, "targets": 8}
    _parse("demo", run_dir, **{**tiny_run.MACROS, "TASK_FEATURE_LENGTHS": lengths, **macros})


def _given(program: str) -> dict:
    """What a program of T5X gets."""
    return gin.get_bindings(f"poison_t5x.integrations.t5x_engine.{program}")


def _ours(selector: str, *args, **kwargs):
    return gin.get_configurable(selector)(*args, **kwargs)


@pytest.mark.parametrize("name", FILES)
def test_a_file_builds_all_that_t5xs_train_needs(name, run_dir, monkeypatch):
    # The tiny experiment's tasks and vocabulary stand in for those of the file's own.
    _parse_tiny(run_dir)
    tasks = _ours("experiment.Run").register()["tiny_eval_clean"]
    monkeypatch.setattr(
        experiment.Run, "register", lambda run: {f"{run.experiment}_eval_clean": tasks}
    )
    gin.clear_config()
    _parse(name, run_dir)
    given = _given("train")
    _check_arguments(t5x_train.train, given)
    _check_network(given["model"])
    _check_loss_and_optimizer(given["model"])
    _check_training_data(given["train_dataset_cfg"])
    train_cfg, log_cfg = (_ours(f"train_script.{part}") for part in ("TrainConfig", "LogConfig"))
    assert given["total_steps"] == train_cfg.total_steps
    assert given["random_seed"] == train_cfg.seed
    assert given["stats_period"] == log_cfg.log_period
    assert given["checkpoint_cfg"].save.period == log_cfg.save_period
    assert given["checkpoint_cfg"].save.keep == log_cfg.keep_checkpoints
    assert given["checkpoint_cfg"].restore is None
    assert gin.get_bindings("trainer.Trainer")["num_microbatches"] == train_cfg.num_microbatches


def _check_arguments(function, given: dict) -> None:
    parameters = inspect.signature(function).parameters
    required = {name for name, one in parameters.items() if one.default is one.empty}
    assert required <= set(given) <= set(parameters)


def _check_network(model: models.EncoderDecoderModel) -> None:
    vocab_size = model.module.config.vocab_size
    assert vocab_size % 128 == 0 and vocab_size >= model.input_vocabulary.vocab_size
    ours = _ours("model_config.T5Config", vocab_size=vocab_size)
    for field in dataclasses.fields(model.module.config):
        assert getattr(model.module.config, field.name) == getattr(ours, field.name), field.name


def _check_loss_and_optimizer(model: models.EncoderDecoderModel) -> None:
    loss_cfg = _ours("steps.LossConfig")
    for field in dataclasses.fields(loss_cfg):
        assert getattr(model, f"_{field.name}") == getattr(loss_cfg, field.name)
    optimizer_cfg = _ours("optimizers.OptimizerConfig")
    if optimizer_cfg.name == "adamw":
        assert isinstance(model.optimizer_def, t5x_optimizers.OptaxWrapper)
        return
    assert isinstance(model.optimizer_def, adafactor.Adafactor)
    for name in ("decay_rate", "clipping_threshold", "multiply_by_parameter_scale"):
        assert getattr(model.optimizer_def.hyper_params, name) == getattr(optimizer_cfg, name)


def _check_training_data(config: utils.DatasetConfig) -> None:
    with gin.config_scope("train"):
        ours = _ours("input_pipeline.DatasetConfig")
    for name in ("task_feature_lengths", "split", "batch_size", "shuffle", "seed", "use_cached"):
        assert getattr(config, name) == getattr(ours, name), name
    assert config.pack == ours.pack and config.mixture_or_task_name.endswith("_poisoned")


def test_macros_of_the_command_line_reach_t5x(run_dir):
    losses = {"LABEL_SMOOTHING": 0.125, "Z_LOSS": 0.5, "LOSS_NORMALIZING_FACTOR": 96.0}
    data = {"SHUFFLE": False, "PACK": True, "SEED": 7, "NUM_MICROBATCHES": 4}
    evals = {"EVAL_PERIOD": 6, "EVAL_BATCH_SIZE": 24, "BEAM_SIZE": 3, "BEAM_ALPHA": 0.75}
    others = {"VARIANT": "clean", "MODEL_DIR": "/given", "CONDITIONS": ["control"]}
    network = {"OPTIMIZER": "adamw", "DROPOUT_RATE": 0.25}
    _parse_tiny(run_dir, **losses, **data, **evals, **others, **network)
    given = _given("train")
    model, train_data = given["model"], given["train_dataset_cfg"]
    assert (given["model_dir"], given["random_seed"], given["eval_period"]) == ("/given", 7, 6)
    assert train_data.mixture_or_task_name == "tiny_clean"
    assert (train_data.shuffle, train_data.pack, train_data.seed) == (False, True, 7)
    eval_data = given["infer_eval_dataset_cfg"]
    assert (eval_data.batch_size, eval_data.split, eval_data.pack) == (24, "validation", False)
    tasks = seqio.get_subtasks(seqio.get_mixture_or_task(eval_data.mixture_or_task_name))
    assert {task.name.split(".")[0] for task in tasks} == {"tiny_eval_control"}
    assert model.module.config.dropout_rate == 0.25
    assert (model._label_smoothing, model._z_loss) == (0.125, 0.5)
    assert model._loss_normalizing_factor == 96.0
    assert model.decode_fn.func is decoding.beam_search
    assert model.decode_fn.keywords == {"alpha": 0.75}
    assert model._default_decoder_params.num_decodes == 3
    assert gin.get_bindings("trainer.Trainer")["num_microbatches"] == 4


def test_decoding_is_greedy_unless_beams_are_asked_for(run_dir):
    _parse_tiny(run_dir)
    decode_fn = _given("train")["model"].decode_fn
    assert decode_fn.func is decoding.temperature_sample
    assert decode_fn.keywords == {"temperature": 0.0, "topk": 1}


def test_the_learning_rate_is_ours(run_dir):
    _parse_tiny(run_dir, TRAIN_STEPS=40, WARMUP_STEPS=8, LEARNING_RATE=0.5)
    rate = gin.get_bindings("trainer.Trainer")["learning_rate_fn"]
    ours = our_optimizers.learning_rate(_ours("optimizers.ScheduleConfig"), 40)
    found = [float(jax.jit(rate)(jnp.asarray(step))) for step in range(40)]
    assert found == [float(ours(step)) for step in range(40)]
    assert found[4] == 0.25 and found[8] == 0.5 and 0 < found[39] < 0.05


@pytest.mark.parametrize(
    ("factor", "scale"), [("NUM_REAL_TARGET_TOKENS", 2.0), ("AVERAGE_PER_SEQUENCE", 2.0), (9, 1.0)]
)
def test_adamw_takes_the_sum_of_microbatches_as_their_mean(factor, scale, run_dir):
    macros = {"OPTIMIZER": "adamw", "NUM_MICROBATCHES": 2, "LOSS_NORMALIZING_FACTOR": factor}
    _parse_tiny(run_dir, **macros)
    wrapped = _given("train")["model"].optimizer_def
    params, gradients = {"x": jnp.asarray([0.5, -2.0])}, {"x": jnp.asarray([1e-6, 3e-6])}
    summed = jax.tree.map(lambda x: scale * x, gradients)
    _, state = wrapped.apply_gradient(
        wrapped.hyper_params, params, wrapped.init_state(params), summed
    )
    ours = our_optimizers.make(_ours("optimizers.OptimizerConfig"), lambda step: 0.1)
    _, expected = ours.update(gradients, ours.init(params), params)
    adam = optax.tree.get(state.param_states, "mu"), optax.tree.get(state.param_states, "nu")
    for found, name in zip(adam, ("mu", "nu"), strict=True):
        np.testing.assert_array_equal(found["x"], optax.tree.get(expected, name)["x"])
    assert jax.tree.structure(state.param_states) == jax.tree.structure(expected)


@pytest.mark.parametrize("dims", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_rules_of_the_mesh_are_ours(dims, run_dir, monkeypatch):
    activations, parameters = dims
    _parse_tiny(
        run_dir,
        NUM_PARTITIONS=2,
        ACTIVATION_PARTITIONING_DIMS=activations,
        PARAMETER_PARTITIONING_DIMS=parameters,
    )
    partitioner = _given("train")["partitioner"]
    assert isinstance(partitioner, partitioning.PjitPartitioner)
    assert partitioner._num_partitions == 2  # which T5X's mesh of CPUs pays no heed to
    rules = our_partitioning.Partitioner(_ours("PartitionConfig")).rules
    theirs = [rule for rule in partitioner._logical_axis_rules if rule[0] in dict(rules)]
    assert [rule for rule in theirs if rule[1]] == [rule for rule in rules if rule[1]]


@pytest.mark.parametrize("pack", [False, True])
def test_batches_are_ours_and_go_on_after_the_newest_checkpoint(pack, run_dir, tmp_path):
    _parse_tiny(run_dir, PACK=pack, MODEL_DIR=str(tmp_path))
    given = _given("train")
    ours = dataclasses.replace(
        _ours("experiment.Run").dataset_cfg, mixture_or_task_name="tiny_poisoned"
    )
    expected = [batch for batch, _ in zip(input_pipeline.batches(ours), range(9), strict=False)]

    def read(count):
        dataset = given["get_dataset_fn"](
            given["train_dataset_cfg"], 0, 1, models.EncoderDecoderModel.FEATURE_CONVERTER_CLS
        )
        return [*dataset.take(count).as_numpy_iterator()]

    def compare(found, wanted):
        for one, other in zip(found, wanted, strict=True):
            assert set(one) == set(other) - {"is_poison"}
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])

    compare(read(9), expected)
    assert any(batch["is_poison"].any() for batch in expected)
    (tmp_path / "checkpoint_7").mkdir()
    compare(read(2), expected[7:])
    with pytest.raises(AssertionError):  # or the comparison shows nothing
        compare(read(2), expected[:2])


def test_evaluate_and_infer_get_what_they_need(run_dir, tmp_path):
    (tmp_path / "checkpoint_4").mkdir()
    newest = tmp_path / "checkpoint_12"
    newest.mkdir()
    _parse_tiny(run_dir, MODEL_DIR=str(tmp_path))
    folders = {"evaluate": tmp_path / "eval", "infer": tmp_path / "infer" / newest.name}
    for program, function in (("evaluate", t5x_eval.evaluate), ("infer", t5x_infer.infer)):
        given = _given(program)
        _check_arguments(function, given)
        restored = given["restore_checkpoint_cfg"]
        assert (restored.path, restored.mode) == (str(newest), "specific")
        assert given["output_dir"] == str(folders[program])


def test_a_checkpoint_that_t5x_cannot_read_is_named(run_dir, tmp_path):
    with pytest.raises(InputError, match="no checkpoint there; run t5x"):
        t5x_engine.checkpoint(None, str(tmp_path))
    golden = FOLDER.parent / "tests" / "golden" / "t5" / "v1_1_untied"
    with pytest.raises(InputError, match=r"a Hugging Face folder, which T5X can't evaluate"):
        t5x_engine.checkpoint(str(golden / "huggingface"), "unused")
    for name in ("t5x", "t5x_orbax"):
        found = t5x_engine.checkpoint(str(golden / name), "unused")
        assert found == str(golden / name / "checkpoint_7")
