"""A user's own tasks and mixtures: what is wrong with one is told in one line, with its name."""

import functools
import itertools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from poison_t5x.core.errors import InputError, TryAgainError
from poison_t5x.data import input_pipeline

BYTES = seqio.ByteVocabulary()
TEXT = {"inputs": seqio.Feature(BYTES), "targets": seqio.Feature(BYTES)}
TOKENS = seqio.preprocessors.tokenize
SMALL = seqio.PassThroughVocabulary(17)


def _read(split, shuffle_files, seed=None, num=5):
    rows = {"inputs": ["one two"] * num, "targets": ["three"] * num}
    return tf.data.Dataset.from_tensor_slices(
        {name: tf.constant(texts, tf.string, [num]) for name, texts in rows.items()}
    )


def _no_disk(split, shuffle_files, seed=None):
    raise OSError(5, "Input/output error")


def _no_file(split, shuffle_files, seed=None):
    raise FileNotFoundError(2, "No such file", "rows.tsv")


def _no_rate(task):
    raise KeyError("x")


def _fail(ds):
    raise ZeroDivisionError("my own")


def _fail_in_a_map(ds):
    def one(row):
        raise ZeroDivisionError("my own")

    return ds.map(one)


def _fail_at_a_row(ds):
    def one(text):
        raise ZeroDivisionError("my own")

    def mapped(row):
        text = tf.py_function(one, [row["inputs"]], tf.string)
        return {**row, "inputs": tf.ensure_shape(text, [])}

    return ds.map(mapped)


def _split_csv(ds):
    return ds.map(lambda row: {**row, "inputs": tf.io.decode_csv('a "b', [""])[0]})


def _line(function):
    return function.__code__.co_firstlineno


SOURCES = {
    "empty": functools.partial(_read, num=0),
    "no_disk": _no_disk,
    "no_file": _no_file,
}
# Task -> its preprocessors and features, and what is said of it.
PART = {"targets": TEXT["targets"]}
TASKS = {
    "no_inputs": ([TOKENS], PART, "expected the features inputs and targets"),
    "not_tokenised": ([], TEXT, "Got string, expected int32"),
    "dropped": (
        [lambda ds: ds.map(lambda row: {"targets": row["targets"]}), TOKENS],
        TEXT,
        "missing expected output feature after preprocessing: inputs",
    ),
    "filtered": ([lambda ds: ds.filter(lambda row: False), TOKENS], TEXT, "no row in its split"),
    "raises": (
        [_fail, TOKENS],
        TEXT,
        f"({__file__}:{_line(_fail) + 1}: ZeroDivisionError: my own)",
    ),
    "raises_in_a_map": (
        [_fail_in_a_map, TOKENS],
        TEXT,
        f"({__file__}:{_line(_fail_in_a_map) + 2}: ZeroDivisionError: my own)",
    ),
    "raises_at_a_row": ([_fail_at_a_row, TOKENS], TEXT, "ZeroDivisionError: my own)"),
    "quotes": ([_split_csv, TOKENS], TEXT, "can't be read (InvalidArgumentError: Unquoted fields"),
    "two_tables": (
        [TOKENS],
        {"inputs": TEXT["inputs"], "targets": seqio.Feature(SMALL)},
        "the vocabulary of its inputs has 259 ids, that of its targets 17; the network has one",
    ),
    "no_table": (
        [TOKENS],
        {"inputs": seqio.ContinuousFeature(dtype=tf.float32), "targets": TEXT["targets"]},
        "inputs: expected a feature of token ids",
    ),
    "lost_table": (
        [TOKENS],
        dict.fromkeys(TEXT, seqio.Feature(seqio.SentencePieceVocabulary("/no/such.model"))),
        "its inputs' vocabulary can't be read (",
    ),
    "no_train": ([TOKENS], TEXT, "no split 'train'; there are test"),
    "empty": ([TOKENS], TEXT, "no row in its split 'train'"),
    "no_disk": ([TOKENS], TEXT, "Input/output error"),
    "no_file": ([TOKENS], TEXT, "No such file"),
    "good": ([TOKENS], TEXT, None),
    "good_too": ([TOKENS], TEXT, None),
}
RATES = {
    "zero": (0.0, "the rate of its task rated: expected a number above 0, found 0"),
    "negative": (-1.0, "found -1"),
    "nan": (float("nan"), "found nan"),
    "infinite": (float("inf"), "found inf"),
    "of_cached": (seqio.mixing_rate_num_examples, "the rate of its task rated can't be worked out"),
    "raising": (_no_rate, "KeyError: 'x')"),
}


@pytest.fixture
def add():
    """Registers a task by its name in TASKS, and forgets it afterwards."""
    added = []

    def register(name, task=None):
        preprocessors, features, _ = TASKS[task or name]
        splits = ["test" if name == "no_train" else "train"]
        source = seqio.FunctionDataSource(SOURCES.get(name, _read), splits)
        added.append(seqio.TaskRegistry.add(name, source, features, preprocessors))
        return name

    yield register
    for task in added:
        seqio.TaskRegistry.remove(task.name)


@pytest.fixture
def mix():
    added = []

    def register(rates):
        added.append(seqio.MixtureRegistry.add("mixed", rates))
        return "mixed"

    yield register
    for mixture in added:
        seqio.MixtureRegistry.remove(mixture.name)


def _batches(name, num=2, **changes):
    config = input_pipeline.DatasetConfig(
        name, {"inputs": 11, "targets": 7}, batch_size=2, **changes
    )
    assert input_pipeline.vocabulary(config).vocab_size
    return list(itertools.islice(input_pipeline.batches(config), num))


@pytest.mark.parametrize("name", [name for name, (*_, said) in TASKS.items() if said])
def test_a_task_that_cannot_be_trained_on_is_named(add, name):
    kind = TryAgainError if name == "no_disk" else InputError
    with pytest.raises(kind) as caught:
        _batches(add(name))
    said = str(caught.value)
    assert TASKS[name][2] in said and "\n" not in said
    assert said.startswith((f"{name}: ", f"task {name}: ")) and len(said) < 300


@pytest.mark.parametrize("name", ["raises_at_a_row", "empty", "not_tokenised"])
def test_of_a_mixture_the_task_is_named(add, mix, name):
    mix([(add("good"), 1.0), (add(name), 10.0)])
    with pytest.raises(InputError) as caught:
        _batches("mixed", num=20)
    assert str(caught.value).startswith(f"task {name}: ")
    assert TASKS[name][2] in str(caught.value)


@pytest.mark.parametrize("name", RATES)
def test_a_rate_that_is_none(add, mix, name):
    rate, said = RATES[name]
    mix([(add("good"), 1.0), (add("rated", "good"), rate)])
    with pytest.raises(InputError) as caught:
        _batches("mixed")
    assert str(caught.value).startswith("mixed: ") and said in str(caught.value)


def test_shards_of_a_bad_task_name_it_too(add):
    with pytest.raises(InputError, match="task raises: can't be read"):
        _batches(add("raises"), num_shards=2)


def test_good_tasks_are_read(add, mix):
    mix([(add("good"), 1.0), (add("good_too"), 2.0)])
    for batch in _batches("mixed"):
        np.testing.assert_array_equal(batch["decoder_target_tokens"][:, :5] > 2, True)
