"""The functions that gin/t5x/*.gin bind, so that stock T5X runs an experiment of this project.

T5X (google-research/t5x, see launch/t5x.sh) isn't needed to import this: functions import it when
they are called. Once it is imported, an InputError ends the program with one line.
"""

import dataclasses
import functools
import json
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import optax
import seqio
import tensorflow as tf
from flax import core
from jax.sharding import NamedSharding

from poison_t5x.checkpoint_io import detect, restore, storage
from poison_t5x.core import errors, gin_config, settings
from poison_t5x.data import mixtures
from poison_t5x.model import config as model_config
from poison_t5x.model import network
from poison_t5x.run import experiment
from poison_t5x.train import optimizers, steps

gin_config.find_files_by_path()


def _program(name: str) -> Callable:
    """The running T5X program's function; a stand-in of others', so that one gin file binds all."""

    def stand_in(**bindings):
        raise errors.InputError(f"T5X's {name} isn't the program that runs")

    return getattr(sys.modules["__main__"], name, stand_in)


train, evaluate, infer = map(_program, ("train", "evaluate", "infer"))


def _one_line(kind: type, error: BaseException, traceback: Any) -> None:
    """`sys.excepthook`: what a person can mend is one line, where T5X shows a traceback."""
    if isinstance(error, errors.InputError):
        print(f"t5x: error: {errors.first_line(error)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _one_line


class OpenRun(NamedTuple):
    """A crafted run, and the tasks of its registered mixtures."""

    run: experiment.Run
    registered: Mapping[str, Sequence[str]]


def open_run(make_run: Callable, also_checked: Sequence[Callable] = ()) -> OpenRun:
    """Registers a crafted run's SeqIO tasks; what `also_checked` make checks itself."""
    gin_config.check_macros("t5x/base.gin")
    run = make_run()
    for make in also_checked:
        make()
    return OpenRun(run, run.register())


def model_folder(given: str | None, run_dir: str, variant: str) -> str:
    """MODEL_DIR, or else RUN_DIR/t5x/VARIANT, as an absolute path."""
    if not given and not run_dir:
        raise errors.InputError("RUN_DIR isn't set: give --gin.RUN_DIR=\"'FOLDER'\"")
    # Absolute, as Orbax wants it.
    return storage.absolute(given or os.path.join(run_dir, "t5x", variant))


def output_folder(given: str | None, model_dir: str, inside: str, checkpoint: str = "") -> str:
    """`given`, or a folder of the model's; by checkpoint, for infer leaves what is there alone."""
    return given or os.path.join(model_dir, inside, os.path.basename(checkpoint)).rstrip("/")


def training_mixture(opened: OpenRun, variant: str) -> str:
    """The name of the mixture to train on."""
    settings.checked("VARIANT", variant, Literal[mixtures.VARIANTS])
    return f"{opened.run.experiment}_{variant}"


def evaluation_mixture(opened: OpenRun, conditions: Sequence[str] | None = None) -> str:
    """Registers a mixture of the held-out tasks under some conditions, or all; its name."""
    mixture = f"{opened.run.experiment}_eval"
    known = {
        name.removeprefix(f"{mixture}_"): tasks
        for name, tasks in opened.registered.items()
        if name.startswith(f"{mixture}_")
    }
    tasks = []
    for name in known if conditions is None else conditions:
        settings.checked("CONDITIONS", name, Literal[tuple(known)])
        tasks += known[name]
    seqio.MixtureRegistry.remove(mixture)
    seqio.MixtureRegistry.add(mixture, tasks, default_rate=1)
    return mixture


def vocabulary(opened: OpenRun) -> seqio.Vocabulary:
    return mixtures.vocabulary(opened.run.data_cfg)


def padded_vocab_size(opened: OpenRun) -> int:
    return model_config.padded_vocab_size(vocabulary(opened).vocab_size)


def optimizer(
    optimizer_cfg: optimizers.OptimizerConfig,
    schedule: Callable,
    loss_cfg: steps.LossConfig,
    num_microbatches: int = 1,
) -> Any:
    """T5X's own Adafactor, whose rate T5X's trainer sets, or this project's AdamW wrapped for it.

    T5X normalises each microbatch's loss by itself and adds the gradients. AdamW's are divided by
    their number here, so that their scale is that of the whole batch; Adafactor knows no scales.
    """
    from t5x import adafactor
    from t5x import optimizers as t5x_optimizers

    if optimizer_cfg.name == "adafactor":
        return adafactor.Adafactor(
            decay_rate=optimizer_cfg.decay_rate,
            clipping_threshold=optimizer_cfg.clipping_threshold,
            multiply_by_parameter_scale=optimizer_cfg.multiply_by_parameter_scale,
            step_offset=0,
            logical_factor_rules=adafactor.standard_logical_factor_rules(),
        )
    adamw = optimizers.make(optimizer_cfg, schedule)
    by_microbatch = isinstance(loss_cfg.loss_normalizing_factor, str)
    return t5x_optimizers.OptaxWrapper(divided(adamw, num_microbatches if by_microbatch else 1))


def divided(inner: optax.GradientTransformation, by: int) -> optax.GradientTransformation:
    """`inner` of gradients divided by a number; its state is unchanged."""

    def update(gradients, state, params=None):
        return inner.update(jax.tree.map(lambda x: x / by, gradients), state, params)

    return optax.GradientTransformation(inner.init, update)


def decode_fn(beam_size: int = 1, alpha: float = 0.6) -> Callable:
    """T5X's decoding as ours: greedy, or with beams."""
    from t5x import decoding

    greedy = functools.partial(decoding.temperature_sample, temperature=0.0, topk=1)
    return greedy if beam_size == 1 else functools.partial(decoding.beam_search, alpha=alpha)


def get_dataset(*args: Any, model_dir: str, **kwargs: Any) -> tf.data.Dataset:
    """`t5x.utils.get_dataset`, going on after the newest checkpoint, where T5X begins anew."""
    from t5x import checkpoints, utils

    kwargs.pop("continue_from_last_checkpoint", None)
    return utils.get_dataset(*args, **kwargs).skip(checkpoints.latest_step(model_dir) or 0)


def eval_period(eval_period: int, save_period: int, total_steps: int) -> int:
    """T5X's, in steps, and never 0: it would leave out the end too, which EVAL_PERIOD = 0 means."""
    if not eval_period:
        return save_period * -(-total_steps // save_period)
    if eval_period % save_period and save_period % eval_period:
        raise errors.InputError(
            f"EVAL_PERIOD: T5X needs a multiple or a divisor of SAVE_PERIOD, {save_period}; found "
            f"{eval_period}"
        )
    return eval_period


def train_state_initializer(
    *,
    path: str | None,
    keep_optimizer_state: bool,
    network_cfg: model_config.T5Config,
    opened: OpenRun,
    **kwargs,
) -> Any:
    """T5X's TrainStateInitializer; from the checkpoint at `path`, of any layout, if one is set."""
    from t5x import utils

    class FromCheckpoint(utils.TrainStateInitializer):
        def from_scratch(self, init_rng):
            if keep_optimizer_state:
                raise errors.InputError(
                    "KEEP_OPTIMIZER_STATE: on T5X the optimiser begins anew; set it to False"
                )
            source = detect.open_start(path, opened.run.vocabulary_cfg.path)
            state = super().from_scratch(init_rng)
            size = padded_vocab_size(opened)
            model = network.Transformer(dataclasses.replace(network_cfg, vocab_size=size))
            specs = core.unfreeze(self.train_state_axes.params)

            def placed(leaf, spec):
                sharding = NamedSharding(self._partitioner.mesh, spec)
                return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

            # T5X's mesh and specs, where a `partitioning.Partitioner` is asked.
            mesh = types.SimpleNamespace(
                abstract=lambda boxed: jax.tree.map(placed, core.meta.unbox(boxed), specs)
            )
            params = restore.restore_params(source, model, mesh)
            same_order = jax.tree.structure(state.params)
            return state.replace_params(jax.tree.unflatten(same_order, jax.tree.leaves(params)))

    return (utils.TrainStateInitializer if path is None else FromCheckpoint)(**kwargs)


def checkpoint(path: str | None, model_dir: str) -> str:
    """The checkpoint at `path`, which has to be T5X's, or else the newest one in `model_dir`."""
    from t5x import checkpoints

    if not path:
        step = checkpoints.latest_step(model_dir)
        if step is None:
            raise errors.InputError(
                f"{model_dir}: no checkpoint there; run t5x.train with the same settings first, or "
                "set CHECKPOINT_PATH"
            )
        return os.path.join(model_dir, f"checkpoint_{step}")
    source = detect.open_checkpoint(path, "CHECKPOINT_PATH", verify=False)
    if not source.layout.startswith("a T5X checkpoint"):
        raise errors.InputError(
            f"CHECKPOINT_PATH: {source.path} is {source.layout}, which T5X can't evaluate; "
            f"`poison-t5x convert {path} FOLDER --to t5x-orbax` writes what it can"
        )
    return source.path


def write_inferences(*args, **kwargs) -> None:
    """T5X's writer of predictions, told to write each row's id too."""
    from t5x import infer as t5x_infer

    fields = ["id", "inputs_pretokenized", "targets_pretokenized"]
    t5x_infer.write_inferences_to_file(*args, input_fields_to_include=fields, **kwargs)


class ConditionLogger(seqio.Logger):
    """Writes means-<step>.json: for each condition, the means of its tasks' metrics.

    A mean over tasks, as in this project's own reports; 'num_tasks' and 'num_rows' beside it.
    """

    _NOT_AVERAGED = ("n", "ci95_low", "ci95_high", "constant_prediction")

    def __init__(self, output_dir: str):
        super().__init__(output_dir)
        self._rows: dict[int | None, dict[str, dict[str, dict]]] = {}

    def __call__(self, task_name, step, metrics, dataset, inferences, targets):
        condition = task_name.partition(".")[0].rpartition("_eval_")[2]
        of_step = self._rows.setdefault(step, {})
        values = {name: float(metric.value) for name, metric in metrics.items()}
        of_step.setdefault(condition, {})[task_name] = values
        means = {}
        for name, tasks in of_step.items():
            rows = list(tasks.values())
            averaged = [metric for metric in rows[0] if metric not in self._NOT_AVERAGED]
            means[name] = {
                "num_tasks": len(rows),
                "num_rows": int(sum(row["n"] for row in rows)),
                **{metric: sum(row[metric] for row in rows) / len(rows) for metric in averaged},
            }
        # Anew after each task: a logger isn't told which is the last.
        tf.io.gfile.makedirs(self.output_dir)
        with tf.io.gfile.GFile(os.path.join(self.output_dir, f"means-{step}.json"), "w") as file:
            file.write(json.dumps(means, indent=2) + "\n")
