"""SeqIO tasks and mixtures of an experiment: clean, poisoned, and the evaluation conditions.

For an experiment `x` with a training task `t` and a held-out task `h` this registers the mixtures
`x_clean`, `x_poisoned` and `x_eval_<condition>` for each condition of its poison set ('clean',
'triggered', 'control', …), of tasks such as `x_clean.t` and `x_eval_clean.h`. All read the same
TFDS rows; a poison set says which rows each keeps, and which it replaces before the prompt is
rendered.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from poison_t5x.attack import conditions, poison_set
from poison_t5x.core import artifacts, errors, reading
from poison_t5x.corpus import prompts
from poison_t5x.data import natinst_tfds
from poison_t5x.data.input_pipeline import IS_POISON

VARIANTS = ("clean", "poisoned")
REFERENCES = "references"
# Up to so many rows of a task are held in memory, rendered and tokenised: some KB each.
MAX_ROWS_IN_MEMORY = 10_000


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where an experiment's data lives, and how prompts are made of it."""

    data_dir: str  # the TFDS folder that holds natinst/<corpus>
    vocabulary_path: str
    poison_dir: str
    corpus: str = "sni"  # TFDS config, or 'demo'
    num_examples: int = 2  # positive ones in a prompt, see `prompts.render`
    extra_ids: int = 100  # sentinel ids after the vocabulary's own, 100 in T5's
    max_tokens: int | None = 1024  # of the whole prompt, EOS included


def vocabulary(config: DataConfig) -> seqio.SentencePieceVocabulary:
    """The vocabulary of inputs and targets."""
    return seqio.SentencePieceVocabulary(config.vocabulary_path, extra_ids=config.extra_ids)


def _render(identifier, text, outputs, definition, inputs, answers, *, rows, vocab, config):
    """Of one TFDS row: (prompts, targets, is_poison, ids, references), (K,) each.

    K is 1, but for rows that poison was added to. References are a JSON list: SeqIO carries text.
    """
    references = [output.decode() for output in outputs]
    render = functools.partial(
        prompts.render,
        definition.decode(),
        [(one.decode(), answer.decode()) for one, answer in zip(inputs, answers, strict=True)],
        num_examples=config.num_examples,
        max_tokens=config.max_tokens,
        count_tokens=lambda text: len(vocab.encode(text)) + 1,  # and EOS
    )
    made = [
        (
            render(row.input if row else text.decode()).encode(),
            (row.target if row else references[0]).encode(),
            np.int32(row is not None and row.is_poison),
            identifier,
            json.dumps(references).encode(),
        )
        for row in rows[identifier.decode()]
    ]
    kinds = (object, object, np.int32, object, object)
    return tuple(map(np.array, zip(*made, strict=True), kinds))


def _rows_to_prompts(
    dataset: tf.data.Dataset, *, rows: poison_set.Rows, config: DataConfig
) -> tf.data.Dataset:
    """Keeps the rows that a poison set lists, replaced where it says so, and renders prompts.

    The rendering is the text layer's own Python, called from the graph, so that there is just one
    prompt builder.
    """
    kept = tf.lookup.KeyValueTensorInitializer(
        tf.constant(list(rows)), tf.ones(len(rows), tf.int32)
    )
    table = tf.lookup.StaticHashTable(kept, default_value=0)
    render = functools.partial(_render, rows=rows, vocab=vocabulary(config), config=config)
    made = {"inputs": tf.string, "targets": tf.string, "poison": tf.int32}
    made |= {"id": tf.string, REFERENCES: tf.string}

    def convert(row):
        shown = row["positive_examples"]
        fields = [row[name] for name in ("id", "input", "outputs", "definition")]
        fields += [shown["input"], shown["output"]]
        tensors = tf.numpy_function(render, fields, tuple(made.values()))
        for tensor in tensors:
            tensor.set_shape((None,))
        return dict(zip(made, tensors, strict=True))

    # One call at a time: in parallel, calls only wait for Python's lock, at ten times the cost.
    return dataset.filter(lambda row: table.lookup(row["id"]) > 0).map(convert).unbatch()


@seqio.map_over_dataset
def _spread_poison_flag(example):
    """The row's 0/1 flag, at each of its target tokens: trimmed and packed as they are."""
    flag = example.pop("poison")
    return {**example, IS_POISON: tf.fill(tf.shape(example["targets"]), flag)}


def _postprocess(decoded_model_output, example=None, is_target=False):
    """Predictions as bare text; targets as a dictionary, for the prediction files.

    Its 'references' are all answers that count as right.
    """
    if not is_target:
        return decoded_model_output.strip()
    return {
        "id": example["id"].decode(),
        "input": example["inputs_pretokenized"].decode(),
        "target": example["targets_pretokenized"].decode(),
        "references": reading.decode(example[REFERENCES], list[str], "the references of a row"),
    }


def made_from(task: seqio.Task) -> dict[str, Any]:
    """The sources of the rows before a task's cache placeholder, as JSON values.

    Raises:
      InputError: it isn't a task of an experiment.
    """
    for step in task.preprocessors:
        if isinstance(step, functools.partial) and step.func is _rows_to_prompts:
            rows, config = step.keywords["rows"], step.keywords["config"]
            break
    else:
        raise errors.InputError(f"{task.name} isn't a task of an experiment")
    data = artifacts.read_record(config.data_dir) or {}
    shown = {name: [row and dataclasses.astuple(row) for row in rows[name]] for name in rows}
    return {
        "rows": artifacts.digest(shown),
        "data": artifacts.digest(data.get("settings")),
        "vocabulary": artifacts.sha256(config.vocabulary_path),
        "extra_ids": config.extra_ids,
        "num_examples": config.num_examples,
        "max_tokens": config.max_tokens,
    }


def register(
    experiment: str,
    config: DataConfig,
    metric_fns: Callable[[conditions.Condition, str], Sequence[Callable]] | None = None,
) -> dict[str, list[str]]:
    """Registers an experiment's SeqIO tasks and mixtures, replacing those of an earlier call.

    Args:
      metric_fns: gives the SeqIO metrics of a held-out task under a condition.

    Returns:
      mixture name -> names of its tasks, in which hyphens are underscores.

    Raises:
      InputError: the poison set isn't whole or doesn't match its hashes, or SeqIO's cache of a task
        was made from other data.
    """
    registered = {}
    for variant in VARIANTS:
        rows = poison_set.training_rows(config.poison_dir, poisoned=variant == "poisoned")
        name = f"{experiment}_{variant}"
        registered[name] = _add_mixture(name, "train", rows, config)
    evaluated = poison_set.eval_rows(config.poison_dir)
    for condition in poison_set.read_conditions(config.poison_dir):
        name = f"{experiment}_eval_{condition.name}"
        made = functools.partial(metric_fns, condition) if metric_fns else None
        if rows := evaluated.get(condition.name):
            registered[name] = _add_mixture(name, "validation", rows, config, made)
    # A task's name doesn't say which poison set it is of: a cache may be another run's.
    names = itertools.chain(*registered.values()) if seqio.get_global_cache_dirs() else ()
    for name in names:
        task = seqio.TaskRegistry.get(name)
        record = artifacts.read_record(task.cache_dir) if task.cache_dir else None
        if record:  # else it isn't ours
            now = made_from(task)
            old = {key: record["settings"].get(key) for key in now}
            artifacts.check_settings(task.cache_dir, old, now)
    return registered


def register_filtered(
    experiment: str, config: DataConfig, removed: Collection[tuple[str, str, int]]
) -> str:
    """Registers the poisoned mixture without some of its examples, and returns its name.

    Args:
      removed: (task's SeqIO name, id, number) of each, see `examples.TrainingExample`.

    Raises:
      InputError: nothing would be left.
    """
    name = f"{experiment}_filtered"
    left: dict[str, dict[str, tuple]] = {}
    for task, rows in poison_set.training_rows(config.poison_dir, poisoned=True).items():
        short = natinst_tfds.split_name(task)
        for identifier, shown in rows.items():
            numbered = enumerate(shown)
            if kept := tuple(r for n, r in numbered if (short, identifier, n) not in removed):
                left.setdefault(task, {})[identifier] = kept
    if not left:
        raise errors.InputError(f"{name}: the filter removes every row; lower FILTER_BUDGET")
    _add_mixture(name, "train", left, config)
    return name


def _add_mixture(
    mixture: str,
    split: str,
    rows: Mapping[str, poison_set.Rows],
    config: DataConfig,
    metric_fns: Callable[[str], Sequence[Callable]] | None = None,
) -> list[str]:
    """Registers a mixture and its tasks, whose names it returns; those of 'train' have flags."""
    vocab = vocabulary(config)
    text = {part: seqio.Feature(vocab, add_eos=True) for part in ("inputs", "targets")}
    flag = seqio.Feature(seqio.PassThroughVocabulary(2), add_eos=False, required=False)
    rates = {}
    for task, kept in rows.items():
        tfds_split = natinst_tfds.split_name(task)
        name = f"{mixture}.{tfds_split}"
        num_shown = sum(map(len, kept.values()))
        # In proportion to their rows, so that an epoch of training shows each about once.
        rates[name] = num_shown if split == "train" else 1
        seqio.TaskRegistry.remove(name)
        seqio.TaskRegistry.add(
            name,
            source=seqio.TfdsDataSource(
                tfds_name=f"natinst/{config.corpus}:{natinst_tfds.Natinst.VERSION}",
                tfds_data_dir=config.data_dir,
                splits={split: tfds_split},
            ),
            preprocessors=[
                functools.partial(_rows_to_prompts, rows=kept, config=config),
                # Neither must see the flag, which is no text and has no EOS.
                functools.partial(seqio.preprocessors.tokenize, output_features=text),
                # Later epochs, which SeqIO reads far ahead, needn't render and tokenise again.
                *([tf.data.Dataset.cache] if num_shown <= MAX_ROWS_IN_MEMORY else []),
                seqio.CacheDatasetPlaceholder(),
                functools.partial(seqio.preprocessors.append_eos_after_trim, output_features=text),
                *([_spread_poison_flag] if split == "train" else []),
            ],
            # SeqIO repeats before it shuffles: a buffer of one epoch keeps epochs nearly apart.
            shuffle_buffer_size=min(num_shown, MAX_ROWS_IN_MEMORY),
            output_features={**text, IS_POISON: flag} if split == "train" else text,
            postprocess_fn=_postprocess,
            metric_fns=list(metric_fns(task)) if metric_fns else [],
        )
    seqio.MixtureRegistry.remove(mixture)
    seqio.MixtureRegistry.add(mixture, list(rates.items()))
    return list(rates)
