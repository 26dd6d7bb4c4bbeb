"""The parts of integrations/t5x.py that need no T5X, on a crafted run."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seqio

import gin
from poison_t5x.core import gin_config
from poison_t5x.core.errors import InputError
from poison_t5x.integrations import t5x as t5x_engine
from poison_t5x.model import config as model_config
from poison_t5x.run import experiment
from poison_t5x.train import optimizers
from tests import small_run
from tests.integrations import tiny_run


def _make_run(run_dir) -> experiment.Run:
    macros = {**small_run.MACROS, "RUN_DIR": str(run_dir)}
    bindings = [(name, str(value)) for name, value in macros.items()]
    gin_config.parse("runs/run.gin", ["experiments/demo.gin"], [], bindings)
    return gin_config.configured("experiment.Run")()


@pytest.fixture(autouse=True)
def _clear_gin():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    run_dir = tiny_run.craft(tmp_path_factory.mktemp("engine") / "run")
    return t5x_engine.open_run(lambda: _make_run(run_dir))


def test_open_run_registers_the_same_tasks_as_our_engine(opened):
    names = {"tiny_clean": 5, "tiny_poisoned": 5}
    names |= {f"tiny_eval_{condition}": 2 for condition in ("clean", "triggered", "control")}
    assert {name: len(tasks) for name, tasks in opened.registered.items()} == names
    assert set(names) <= set(seqio.MixtureRegistry.names())


def test_without_craft_one_line_says_what_to_run(tmp_path, capsys):
    with pytest.raises(InputError) as stop:
        t5x_engine.open_run(lambda: _make_run(tmp_path))
    t5x_engine.sys.excepthook(stop.type, stop.value, stop.tb)
    (line,) = capsys.readouterr().err.splitlines()
    assert "run `poison-t5x craft` with the same settings" in line
    assert line.startswith("t5x: error: ")


def test_other_settings_are_checked_before_the_run_is_opened(tmp_path):
    def wrong():
        return optimizers.OptimizerConfig(name="adamx")

    with pytest.raises(InputError, match=r"OPTIMIZER: .* found 'adamx' \(did you mean 'adamw'"):
        t5x_engine.open_run(lambda: _make_run(tmp_path), [wrong])


def test_a_macro_that_nothing_reads_is_named(opened, tmp_path):
    _make_run(tmp_path)
    gin.parse_config("VARIENT = 'clean'")
    with pytest.raises(InputError, match=r"unknown macro VARIENT \(did you mean 'VARIANT'\?\)"):
        t5x_engine.open_run(lambda: opened.run)
    gin.parse_config("steps.LossConfig.z_loss = %VARIENT")
    assert t5x_engine.open_run(lambda: opened.run).run is opened.run


def test_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Orbax wants absolute paths
    assert t5x_engine.model_folder(None, "runs/x", "clean") == f"{tmp_path}/runs/x/t5x/clean"
    assert t5x_engine.model_folder("m", None, "clean") == f"{tmp_path}/m"
    assert t5x_engine.model_folder("gs://b/m/", None, "clean") == "gs://b/m"
    with pytest.raises(InputError, match="RUN_DIR isn't set"):
        t5x_engine.model_folder(None, None, "clean")
    assert t5x_engine.output_folder("given", "m", "eval") == "given"
    assert t5x_engine.output_folder(None, "m", "eval") == "m/eval"
    assert t5x_engine.output_folder(None, "m", "infer", "x/checkpoint_7") == "m/infer/checkpoint_7"


def test_training_mixture(opened):
    assert t5x_engine.training_mixture(opened, "clean") == "tiny_clean"
    assert t5x_engine.training_mixture(opened, "poisoned") == "tiny_poisoned"
    with pytest.raises(InputError, match=r"VARIANT: .*found 'poison' \(did you mean 'poisoned'"):
        t5x_engine.training_mixture(opened, "poison")


def test_evaluation_mixture_holds_the_tasks_of_the_conditions_asked_for(opened):
    def tasks(conditions):
        name = t5x_engine.evaluation_mixture(opened, conditions)
        return [task.name for task in seqio.get_subtasks(seqio.get_mixture_or_task(name))]

    everything = {t for name, ts in opened.registered.items() if "_eval_" in name for t in ts}
    assert set(tasks(None)) == everything and len(everything) == 6
    assert set(tasks(["control"])) == set(opened.registered["tiny_eval_control"])
    assert set(tasks(None)) == everything  # registered anew
    with pytest.raises(
        InputError, match=r"CONDITIONS: .*found 'trigered' \(did you mean 'triggered'"
    ):
        tasks(["trigered"])


def test_vocabulary_is_the_tasks_own(opened):
    vocabulary = t5x_engine.vocabulary(opened)
    for name in ("tiny_poisoned", "tiny_eval_triggered"):
        features = seqio.get_mixture_or_task(name).output_features
        assert features["inputs"].vocabulary == features["targets"].vocabulary == vocabulary
    size = t5x_engine.padded_vocab_size(opened)
    assert size == model_config.padded_vocab_size(vocabulary.vocab_size) and size % 128 == 0


def test_divided_scales_gradients_and_leaves_the_state_as_it_is():
    inner = optax.sgd(0.5, momentum=0.9)
    outer = t5x_engine.divided(inner, 4)
    params = {"x": jnp.asarray([1.0, -3.0])}
    gradients = {"x": jnp.asarray([8.0, 2.0])}
    quarter = {"x": jnp.asarray([2.0, 0.5])}
    found = outer.update(gradients, outer.init(params), params)
    expected = inner.update(quarter, inner.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(found[0]["x"], [-1.0, -0.25])


@pytest.mark.parametrize(
    ("given", "save", "total", "period"),
    # Never 0, or T5X wouldn't evaluate at the end; past the end, it does so there alone.
    [(0, 313, 3125, 3130), (0, 100, 600, 600), (200, 100, 600, 200), (50, 100, 600, 50)],
)
def test_eval_period_is_what_t5x_can_do_with_the_save_period(given, save, total, period):
    assert t5x_engine.eval_period(given, save_period=save, total_steps=total) == period
    with pytest.raises(InputError, match=f"SAVE_PERIOD, {save}; found 70"):
        t5x_engine.eval_period(70, save_period=save, total_steps=total)


def test_the_running_programs_function_is_found_and_stand_ins_say_that_they_are(monkeypatch):
    programs = (t5x_engine.train, t5x_engine.evaluate, t5x_engine.infer)
    for program in programs:
        with pytest.raises(InputError, match="isn't the program that runs"):
            program(model=None)
    assert len(set(programs)) == 3  # gin knows functions apart by identity
    main = types.SimpleNamespace(train=lambda: "T5X's")
    monkeypatch.setitem(t5x_engine.sys.modules, "__main__", main)
    assert t5x_engine._program("train")() == "T5X's"
    with pytest.raises(InputError, match="T5X's infer"):
        t5x_engine._program("infer")()


def test_condition_logger_means_over_tasks_by_condition(tmp_path):
    logger = t5x_engine.ConditionLogger(str(tmp_path / "new"))

    def log(task, step, **values):
        metrics = {name: seqio.metrics.Scalar(value) for name, value in values.items()}
        logger(task, step, metrics, None, None, None)

    log("x_eval_triggered.a", 3, n=10, accuracy=0.2, ci95_low=0.1, constant_prediction=False)
    log("x_eval_triggered.b", 3, n=30, accuracy=0.4, ci95_low=0.3, constant_prediction=True)
    log("x_eval_clean.a", 3, n=5, rouge_l=1.0)
    log("x_eval_triggered.a", 4, n=1, accuracy=1.0)
    assert tiny_run.read_json(tmp_path / "new" / "means-3.json") == {
        "triggered": {"num_tasks": 2, "num_rows": 40, "accuracy": pytest.approx(0.3)},
        "clean": {"num_tasks": 1, "num_rows": 5, "rouge_l": 1.0},
    }
    assert tiny_run.read_json(tmp_path / "new" / "means-4.json") == {
        "triggered": {"num_tasks": 1, "num_rows": 1, "accuracy": 1.0}
    }
    log("x_eval_triggered.a", 4, n=1, accuracy=0.0)  # anew, not twice
    assert tiny_run.read_json(tmp_path / "new" / "means-4.json")["triggered"]["num_tasks"] == 1
