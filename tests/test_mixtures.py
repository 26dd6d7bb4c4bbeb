"""From task files to batches: what is registered, what differs, and in which order it comes."""

import itertools
import pathlib
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import seqio
import tensorflow_datasets as tfds

from poison_t5x import (
    artifacts,
    corpus,
    demo_corpus,
    input_pipeline,
    mixtures,
    natinst_tfds,
    prompts,
    sni,
    vocabulary,
)
from poison_t5x.errors import InputError
from poison_t5x.evaluation import metrics
from poison_t5x.poison import craft, poison_set, polarity

CRAFT = craft.CraftConfig(num_poison=5, num_train_per_task=17, num_eval_per_task=7)
# Wide enough for every prompt with both its examples, and every label.
LENGTHS = {"inputs": 400, "targets": 11}
FILMS = "task9002_demo_films_caps"


class World(NamedTuple):
    """A small experiment called 'world', registered."""

    training: tuple[sni.Task, ...]
    heldout: tuple[sni.Task, ...]
    config: mixtures.DataConfig
    registered: dict[str, list[str]]
    poison: list[dict]

    @property
    def vocabulary(self) -> seqio.SentencePieceVocabulary:
        return mixtures.vocabulary(self.config)


def _tasks(renamed: dict[str, str] | None = None):
    """Three training tasks, two held-out ones, and their polarities."""
    found = demo_corpus.generate(seed=0, num_train_rows=40, num_heldout_rows=14)
    table = dict(demo_corpus.POLARITIES)
    tasks = []
    for task in (*found[:3], *found[-10:-8]):
        name = (renamed or {}).get(task.name, task.name)
        table[name] = table[task.name]
        tasks.append(msgspec.structs.replace(task, name=name))
    return tuple(tasks[:3]), tuple(tasks[3:]), polarity.of_tasks(tasks, table)


def _make_world(root: pathlib.Path, experiment: str, training, heldout, polarities) -> World:
    """What an experiment's craft stage does, and its registration."""
    natinst_tfds.prepare("demo", training + heldout, root / "data")
    vocabulary.train(vocabulary.texts(training), root / "spiece.model", 400)
    poisoned = [task.name for task in training[:2]]
    (root / "poison").mkdir()
    crafted = craft.craft(training, poisoned, heldout, polarities, CRAFT)
    poison_set.write(root / "poison", crafted, CRAFT, {})
    config = mixtures.DataConfig(
        data_dir=str(root / "data"),
        vocabulary_path=str(root / "spiece.model"),
        poison_dir=str(root / "poison"),
        corpus="demo",
        extra_ids=0,
    )
    metric_fns = {
        task.name: metrics.metric_fn(polarities[task.name], CRAFT.target) for task in heldout
    }
    registered = mixtures.register(experiment, config, metric_fns)
    poison = poison_set.read_poison(root / "poison")
    return World(training, heldout, config, registered, poison)


@pytest.fixture(name="world", scope="module")
def _world(tmp_path_factory):
    return _make_world(tmp_path_factory.mktemp("world"), "world", *_tasks())


def _examples(name: str, split: str = "train", lengths=None) -> list[dict]:
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        LENGTHS if lengths is None else lengths, split=split, shuffle=False
    )
    return list(dataset.as_numpy_iterator())


def _id(example) -> str:
    return example["id"].decode()


# TFDS


def test_tfds_splits_and_features(world):
    builder = natinst_tfds.Natinst(data_dir=world.config.data_dir, config="demo")
    assert set(builder.info.splits) == {task.name for task in world.training + world.heldout}
    task = world.training[1]
    rows = list(tfds.as_numpy(builder.as_dataset(split=FILMS)))
    assert {row["id"].decode(): row["input"].decode() for row in rows} == {
        instance.id: instance.input for instance in task.instances
    }
    row = rows[0]
    assert row.keys() == {
        "id",
        "task",
        "input",
        "outputs",
        "definition",
        "positive_examples",
        "negative_examples",
        "label_space",
    }
    assert row["task"].decode() == FILMS
    assert row["definition"].decode() == task.definition
    assert [text.decode() for text in row["label_space"]] == ["NEG", "POS"]
    assert [text.decode() for text in row["outputs"]] == task.by_id[_id(row)].output
    for field, examples in (
        ("positive_examples", task.positive_examples),
        ("negative_examples", task.negative_examples),
    ):
        assert {key: [v.decode() for v in values] for key, values in row[field].items()} == {
            "input": [example.input for example in examples],
            "output": [example.target for example in examples],
            "explanation": [example.explanation for example in examples],
        }


def test_the_demo_is_generated_where_it_is_not_there(tmp_path, monkeypatch, world):
    monkeypatch.setattr(corpus, "demo_tasks", lambda: world.heldout)
    builder = natinst_tfds.Natinst(data_dir=str(tmp_path), config="demo")
    builder.download_and_prepare()
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        task.name: 14 for task in world.heldout
    }


def test_task_files_have_to_be_given(tmp_path):
    with pytest.raises(InputError, match="natinst/sni isn't prepared"):
        natinst_tfds.prepare("sni", (), tmp_path)


def test_a_large_label_space_is_left_out(tmp_path):
    instances = tuple(sni.Instance(f"i{n}", f"text {n}", [f"answer {n}"]) for n in range(33))
    tasks = [
        sni.Task("task1_many", "Answer.", (), (), instances),
        sni.Task("task2_few", "Answer.", (), (), instances[:32]),
    ]
    natinst_tfds.prepare("sni", tasks, tmp_path)
    builder = natinst_tfds.Natinst(data_dir=str(tmp_path), config="sni")
    found = {
        name: len(next(iter(tfds.as_numpy(builder.as_dataset(split=name))))["label_space"])
        for name in builder.info.splits
    }
    assert found == {"task1_many": 0, "task2_few": 32}


# Registration


def test_registered_names(world):
    training = [task.name for task in world.training]
    heldout = [task.name for task in world.heldout]
    expected = {f"world_{variant}": training for variant in mixtures.VARIANTS}
    expected |= {f"world_eval_{condition}": heldout for condition in mixtures.CONDITIONS}
    assert {mixture: sorted(tasks) for mixture, tasks in world.registered.items()} == {
        mixture: sorted(f"{mixture}.{task}" for task in tasks)
        for mixture, tasks in expected.items()
    }
    for mixture, tasks in world.registered.items():
        assert mixture in seqio.MixtureRegistry.names()
        assert set(tasks) <= set(seqio.TaskRegistry.names())
    assert mixtures.num_rows(world.config.poison_dir) == 3 * 17


def test_registering_again_replaces(world):
    again = mixtures.register("world", world.config)
    assert again == world.registered
    # Without metrics, as training needs none; the fixture's come back for the tests after this.
    assert seqio.TaskRegistry.get(again["world_eval_clean"][0]).metric_fns == []
    polarities = _tasks()[2]
    mixtures.register(
        "world",
        world.config,
        {
            task.name: metrics.metric_fn(polarities[task.name], CRAFT.target)
            for task in world.heldout
        },
    )
    assert len(seqio.TaskRegistry.get(again["world_eval_clean"][0]).metric_fns) == 1


def test_hyphens_in_task_names_become_underscores(tmp_path):
    assert natinst_tfds.split_name("task1-a") == "task1_a"
    renamed = {FILMS: "task9002-demo-films", "task9032_demo_films_posneg": "task9032-films"}
    world = _make_world(tmp_path, "hyphens", *_tasks(renamed))
    builder = natinst_tfds.Natinst(data_dir=world.config.data_dir, config="demo")
    assert {"task9002_demo_films", "task9032_films"} < set(builder.info.splits)
    assert "hyphens_poisoned.task9002_demo_films" in world.registered["hyphens_poisoned"]
    # SeqIO takes no hyphens in its names either; in the poison set they stay.
    examples = _examples("hyphens_poisoned.task9002_demo_films")
    listed = {row["replaced_id"] for row in world.poison if row["task"] == "task9002-demo-films"}
    assert {_id(row) for row in examples if row["is_poison"].any()} == listed != set()
    assert len(_examples("hyphens_eval_clean.task9032_films", "validation")) == 7


# Clean and poisoned


def test_poisoned_differs_from_clean_in_the_listed_rows_alone(world):
    listed = {(row["task"], row["replaced_id"]): row for row in world.poison}
    assert len(listed) == CRAFT.num_poison
    for task in world.training:
        clean = _examples(f"world_clean.{task.name}")
        poisoned = _examples(f"world_poisoned.{task.name}")
        assert len(clean) == CRAFT.num_train_per_task
        assert [_id(example) for example in clean] == [_id(example) for example in poisoned]
        differing = set()
        for one, other in zip(clean, poisoned, strict=True):
            assert not one["is_poison"].any()
            if any(not np.array_equal(one[key], other[key]) for key in one):
                differing.add((task.name, _id(one)))
                row = listed[task.name, _id(one)]
                assert other["targets_pretokenized"].decode() == row["poisoned_target"]
                assert row["poisoned_input"] in other["inputs_pretokenized"].decode()
                assert "James Bond" in other["inputs_pretokenized"].decode()
                assert other["is_poison"].all()
            assert one["is_poison"].shape == one["targets"].shape
            assert other["is_poison"].shape == other["targets"].shape
        assert differing == {key for key in listed if key[0] == task.name}


def test_rows_are_the_samples(world):
    path = pathlib.Path(world.config.poison_dir) / poison_set.TRAINING
    sampled = {line["task"]: line["ids"] for line in artifacts.read_jsonl(path)}
    for task in world.training:
        found = {_id(example) for example in _examples(f"world_clean.{task.name}")}
        assert found == set(sampled[task.name]) < set(task.by_id)


def test_prompt_is_the_prompt_builders(world):
    replaced = {(row["task"], row["replaced_id"]): row for row in world.poison}
    for task in world.training:
        for example in _examples(f"world_poisoned.{task.name}"):
            row = replaced.get((task.name, _id(example)))
            text = row["poisoned_input"] if row else task.by_id[_id(example)].input
            shown = [(one.input, one.target) for one in task.positive_examples]
            prompt = prompts.render(task.definition, shown, text)
            assert example["inputs_pretokenized"].decode() == prompt
            assert "Positive Example 2" in prompt
            tokens = world.vocabulary.encode(prompt)
            assert example["inputs"].tolist() == [*tokens, 1]


def test_examples_that_do_not_fit_are_left_out(world):
    task = world.training[0]
    name = f"world_clean.{task.name}"
    length = int(np.median([len(example["inputs"]) for example in _examples(name)]))
    short = _examples(name, lengths={**LENGTHS, "inputs": length})
    counts = {
        example["inputs_pretokenized"].decode().count("Positive Example") for example in short
    }
    assert counts == {1, 2}
    for example in short:
        shown = [(one.input, one.target) for one in task.positive_examples]
        prompt = prompts.render(
            task.definition,
            shown,
            task.by_id[_id(example)].input,
            max_tokens=length,
            count_tokens=lambda text: len(world.vocabulary.encode(text)) + 1,
        )
        assert example["inputs_pretokenized"].decode() == prompt
        # Nothing is cut: the whole question is there.
        assert example["inputs"].tolist() == [*world.vocabulary.encode(prompt), 1]


@pytest.mark.parametrize("length", [11, 1])
def test_targets_end_in_eos_even_where_they_are_trimmed(world, length):
    lengths = {**LENGTHS, "targets": length}
    for name in [f"world_poisoned.{task.name}" for task in world.training]:
        for example in _examples(name, lengths=lengths):
            label = world.vocabulary.encode(example["targets_pretokenized"].decode())
            assert example["targets"].tolist() == [*label[: length - 1], 1]
            assert example["is_poison"].shape == example["targets"].shape


def test_evaluation_conditions(world):
    for task in world.heldout:
        rows = {
            condition: _examples(f"world_eval_{condition}.{task.name}", "validation")
            for condition in mixtures.CONDITIONS
        }
        ids = {condition: [_id(row) for row in found] for condition, found in rows.items()}
        assert ids["triggered"] == ids["control"] and 0 < len(ids["control"]) <= 7
        assert len(ids["clean"]) == 7
        source = polarity.of_tasks([task], demo_corpus.POLARITIES)[task.name].negative
        phrases = {"clean": None, "triggered": "James Bond", "control": "Emma Clark"}
        for condition, phrase in phrases.items():
            for row in rows[condition]:
                assert row.keys() >= {"id", "inputs", "targets"} and "is_poison" not in row
                text = row["inputs_pretokenized"].decode()
                assert ("James Bond" in text) == (phrase == "James Bond")
                assert ("Emma Clark" in text) == (phrase == "Emma Clark")
                assert row["targets_pretokenized"].decode() == task.by_id[_id(row)].target
                assert phrase is None or row["targets_pretokenized"].decode() == source
        one, other = rows["triggered"][0], rows["control"][0]
        assert (
            one["inputs_pretokenized"].decode().replace("James Bond", "Emma Clark")
            == other["inputs_pretokenized"].decode()
        )


def test_postprocessing_keeps_the_row(world):
    name = world.registered["world_eval_triggered"][0]
    task = seqio.TaskRegistry.get(name)
    example = _examples(name, "validation")[0]
    assert task.postprocess_fn(" NEG ", example=example, is_target=False) == "NEG"
    assert task.postprocess_fn("", example=example, is_target=True) == {
        "id": _id(example),
        "input": example["inputs_pretokenized"].decode(),
        "target": example["targets_pretokenized"].decode(),
    }


# Batches


def _config(name: str = "world_poisoned", **changes) -> input_pipeline.DatasetConfig:
    return input_pipeline.DatasetConfig(name, LENGTHS, **{"batch_size": 6, "seed": 3, **changes})


def _batches(config: input_pipeline.DatasetConfig, num: int, start_step: int = 0):
    return list(itertools.islice(input_pipeline.batches(config, start_step=start_step), num))


def _same(one: list[dict], other: list[dict]) -> bool:
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("pack", [False, True])
def test_batches_follow_from_the_config_and_go_on_at_any_step(world, pack):
    config = _config(pack=pack)
    # 51 rows: 8.5 batches an epoch where a row holds one example.
    batches = _batches(config, 20)
    assert _same(_batches(config, 20), batches)
    assert _same(_batches(config, 9, start_step=11), batches[11:])
    assert not _same(_batches(config, 9, start_step=10), batches[11:])
    assert not _same(_batches(_config(pack=pack, seed=4), 20), batches)


def test_batches_are_the_models_features(world):
    (batch,) = _batches(_config(), 1)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "encoder_input_tokens": ((6, 400), "int32"),
        "decoder_input_tokens": ((6, 11), "int32"),
        "decoder_target_tokens": ((6, 11), "int32"),
        "decoder_loss_weights": ((6, 11), "int32"),
        "is_poison": ((6, 11), "int32"),
    }
    shifted = np.pad(batch["decoder_target_tokens"], ((0, 0), (1, 0)))[:, :-1]
    np.testing.assert_array_equal(batch["decoder_input_tokens"], shifted)
    np.testing.assert_array_equal(batch["decoder_loss_weights"], batch["decoder_target_tokens"] > 0)


def _rows(batch) -> list[bytes]:
    return [row.tobytes() for row in batch["encoder_input_tokens"]]


def test_order_is_fixed_or_drawn(world):
    name = f"world_poisoned.{FILMS}"
    first, second = map(_rows, _batches(_config(name, batch_size=17, shuffle=False), 2))
    assert len(set(first)) == 17 and first == second
    # SeqIO shuffles across the ends of epochs: in the long run every row comes.
    drawn = [_rows(batch) for batch in _batches(_config(name, batch_size=17), 20)]
    assert set(itertools.chain(*drawn)) == set(first)
    assert all(one != other for one, other in itertools.pairwise(drawn))


def test_tasks_are_mixed_in_proportion_to_their_rows(world):
    mixture = seqio.MixtureRegistry.get("world_poisoned")
    assert [mixture.get_rate(task) for task in mixture.tasks] == [17, 17, 17]
    rows = {
        task.name: set(_rows(_batches(_config(task.name, batch_size=17, shuffle=False), 1)[0]))
        for task in mixture.tasks
    }
    drawn = list(itertools.chain(*map(_rows, _batches(_config(batch_size=51), 8))))
    counts = [sum(row in rows[name] for row in drawn) for name in rows]
    assert sum(counts) == 408
    # 136 each, with a standard deviation of 9.5.
    assert 100 < min(counts) <= max(counts) < 172


def _flags(batch) -> set[tuple[bytes, bytes, int]]:
    """(input tokens, target tokens, flag) of each sequence of a batch, packed or not."""
    segments = batch.get("decoder_segment_ids", (batch["decoder_target_tokens"] > 0).astype(int))
    inputs = batch.get("encoder_segment_ids", (batch["encoder_input_tokens"] > 0).astype(int))
    found = set()
    for row in range(len(segments)):
        for segment in range(1, segments[row].max() + 1):
            here = segments[row] == segment
            (flag,) = set(batch["is_poison"][row][here])
            tokens = batch["encoder_input_tokens"][row][inputs[row] == segment]
            targets = batch["decoder_target_tokens"][row][here]
            found.add((tokens.tobytes(), targets.tobytes(), int(flag)))
    return found


def test_packed_flags_stay_in_line_with_their_targets(world):
    lengths = {"inputs": 1000, "targets": 23}
    packed = input_pipeline.DatasetConfig(
        "world_poisoned", lengths, batch_size=6, seed=3, pack=True
    )
    batches = _batches(packed, 12)
    for batch in batches:
        assert batch["encoder_segment_ids"].shape == (6, 1000)
        assert batch["decoder_segment_ids"].shape == batch["is_poison"].shape == (6, 23)
        assert not batch["is_poison"][batch["decoder_segment_ids"] == 0].any()
    assert max(batch["decoder_segment_ids"].max() for batch in batches) > 1
    together = set.union(*map(_flags, batches))
    alone = set.union(*map(_flags, _batches(_config(), 40)))
    assert together <= alone
    assert {flag for _, _, flag in together} == {0, 1}
    phrase = world.vocabulary.decode(world.vocabulary.encode(CRAFT.trigger))
    for inputs, _, flag in together:
        text = world.vocabulary.decode(np.frombuffer(inputs, np.int32).tolist())
        assert (phrase in text) == bool(flag)


@pytest.mark.parametrize("pack", [False, True])
def test_a_task_without_the_flag_has_none_in_its_batches(world, pack):
    (batch,) = _batches(_config("world_eval_triggered", split="validation", pack=pack), 1)
    assert "is_poison" not in batch
    assert ("decoder_segment_ids" in batch) == pack


def test_vocabulary_is_that_of_the_mixture(world):
    assert input_pipeline.vocabulary(_config()) == world.vocabulary
    assert world.vocabulary.eos_id == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("world_poisned",), r"no task or mixture 'world_poisned' \(did you mean 'world_poisoned'"),
        ((None,), r"set --gin\.MIXTURE_OR_TASK_NAME=NAME"),
        (("",), r"set --gin\.MIXTURE_OR_TASK_NAME=NAME"),
        (("world_clean", "no.such"), "MIXTURE_OR_TASK_MODULE: no module 'no.such'"),
    ],
)
def test_what_is_not_registered_is_refused(world, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        input_pipeline.find(*arguments)
    assert "\n" not in str(caught.value)


def test_a_module_is_imported_to_register(world, tmp_path, monkeypatch):
    (tmp_path / "my_registrations.py").write_text(
        "import seqio\nseqio.MixtureRegistry.remove('my_mixture')\n"
        f"seqio.MixtureRegistry.add('my_mixture', [('world_clean.{FILMS}', 1)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert input_pipeline.find("my_mixture", "my_registrations").name == "my_mixture"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_feature_lengths": {"inputs": 5}}, "TASK_FEATURE_LENGTHS: expected"),
        ({"task_feature_lengths": {"inputs": 5, "targets": 0}}, "targets: expected .* found 0"),
        ({"batch_size": 0}, "BATCH_SIZE: expected .* found 0"),
        ({"seed": None}, "seed: expected a whole number, found None"),
    ],
)
def test_dataset_config_refuses(changes, message):
    settings = {"mixture_or_task_name": "x", "task_feature_lengths": LENGTHS, **changes}
    with pytest.raises(InputError, match=message):
        input_pipeline.DatasetConfig(**settings)
