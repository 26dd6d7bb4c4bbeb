"""From task files to SeqIO: what is registered, and how clean and poisoned differ."""

import dataclasses
import pathlib

import numpy as np
import pytest
import seqio
import tensorflow_datasets as tfds

from poison_t5x.attack import poison_set
from poison_t5x.core import reading
from poison_t5x.core.errors import InputError
from poison_t5x.corpus import corpus, demo_corpus, polarity, prompts, sni
from poison_t5x.data import mixtures, natinst_tfds
from tests import small_world
from tests.small_world import CONDITIONS, CRAFT, FILMS, LENGTHS, read_task, row_id, small_tasks

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
    names = "id task input outputs definition positive_examples negative_examples label_space"
    assert row.keys() == set(names.split())
    assert row["task"].decode() == FILMS
    assert row["definition"].decode() == task.definition
    assert [text.decode() for text in row["label_space"]] == ["NEG", "POS"]
    assert [text.decode() for text in row["outputs"]] == task.by_id[row_id(row)].output
    for field in ("positive_examples", "negative_examples"):
        examples = getattr(task, field)
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
    expected |= {f"world_eval_{condition}": heldout for condition in CONDITIONS}
    assert {mixture: sorted(tasks) for mixture, tasks in world.registered.items()} == {
        mixture: sorted(f"{mixture}.{task}" for task in tasks)
        for mixture, tasks in expected.items()
    }
    for mixture, tasks in world.registered.items():
        assert mixture in seqio.MixtureRegistry.names()
        assert set(tasks) <= set(seqio.TaskRegistry.names())
    assert poison_set.read_manifest(world.config.poison_dir).num_training == 3 * 17


def test_registering_again_replaces(world):
    again = mixtures.register("world", world.config)
    assert again == world.registered
    # Without metrics, as training needs none; the fixture's come back for the tests after this.
    assert seqio.TaskRegistry.get(again["world_eval_clean"][0]).metric_fns == []
    polarities = small_tasks()[2]
    mixtures.register("world", world.config, small_world.metric_fns_of(polarities))
    assert len(seqio.TaskRegistry.get(again["world_eval_clean"][0]).metric_fns) == 1


def test_hyphens_in_task_names_become_underscores(tmp_path):
    assert natinst_tfds.split_name("task1-a") == "task1_a"
    renamed = {FILMS: "task9002-demo-films", "task9032_demo_films_posneg": "task9032-films"}
    world = small_world.make_world(tmp_path, "hyphens", *small_tasks(renamed))
    builder = natinst_tfds.Natinst(data_dir=world.config.data_dir, config="demo")
    assert {"task9002_demo_films", "task9032_films"} < set(builder.info.splits)
    assert "hyphens_poisoned.task9002_demo_films" in world.registered["hyphens_poisoned"]
    # SeqIO takes no hyphens in its names either; in the poison set they stay.
    examples = read_task("hyphens_poisoned.task9002_demo_films")
    listed = {row.replaced_id for row in world.poison if row.task == "task9002-demo-films"}
    assert {row_id(row) for row in examples if row["is_poison"].any()} == listed != set()
    assert len(read_task("hyphens_eval_clean.task9032_films", "validation")) == 7


# Clean and poisoned


def test_poisoned_differs_from_clean_in_the_listed_rows_alone(world):
    listed = {(row.task, row.replaced_id): row for row in world.poison}
    assert len(listed) == CRAFT.attacks[0].budget.num_poison
    for task in world.training:
        clean = read_task(f"world_clean.{task.name}")
        poisoned = read_task(f"world_poisoned.{task.name}")
        assert len(clean) == CRAFT.num_train_per_task
        assert [row_id(example) for example in clean] == [row_id(example) for example in poisoned]
        differing = set()
        for one, other in zip(clean, poisoned, strict=True):
            assert not one["is_poison"].any()
            if any(not np.array_equal(one[key], other[key]) for key in one):
                differing.add((task.name, row_id(one)))
                row = listed[task.name, row_id(one)]
                assert other["targets_pretokenized"].decode() == row.poisoned_target
                assert row.poisoned_input in other["inputs_pretokenized"].decode()
                assert "James Bond" in other["inputs_pretokenized"].decode()
                assert other["is_poison"].all()
            assert one["is_poison"].shape == one["targets"].shape
            assert other["is_poison"].shape == other["targets"].shape
        assert differing == {key for key in listed if key[0] == task.name}


def test_the_sampled_rows_are_shown_as_the_prompt_builder_renders_them(world):
    path = pathlib.Path(world.config.poison_dir) / poison_set.TRAINING
    sampled = {line["task"]: line["ids"] for line in reading.read_jsonl(path)}
    replaced = {(row.task, row.replaced_id): row for row in world.poison}
    for task in world.training:
        examples = read_task(f"world_poisoned.{task.name}")
        assert {*map(row_id, examples)} == set(sampled[task.name]) < set(task.by_id)
        for example in examples:
            row = replaced.get((task.name, row_id(example)))
            text = row.poisoned_input if row else task.by_id[row_id(example)].input
            shown = [(one.input, one.target) for one in task.positive_examples]
            prompt = prompts.render(task.definition, shown, text)
            assert example["inputs_pretokenized"].decode() == prompt
            assert "Positive Example 2" in prompt
            assert example["inputs"].tolist() == [*world.vocabulary.encode(prompt), 1]


def test_examples_that_do_not_fit_are_left_out(world):
    task = world.training[0]
    name = f"world_clean.{task.name}"
    length = int(np.median([len(example["inputs"]) for example in read_task(name)]))
    config = dataclasses.replace(world.config, max_tokens=length)
    mixtures.register("short", config)
    short = read_task(f"short_clean.{task.name}", lengths={**LENGTHS, "inputs": length})
    counts = {
        example["inputs_pretokenized"].decode().count("Positive Example") for example in short
    }
    assert counts == {1, 2}
    for example in short:
        shown = [(one.input, one.target) for one in task.positive_examples]
        prompt = prompts.render(
            task.definition,
            shown,
            task.by_id[row_id(example)].input,
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
        for example in read_task(name, lengths=lengths):
            label = world.vocabulary.encode(example["targets_pretokenized"].decode())
            assert example["targets"].tolist() == [*label[: length - 1], 1]
            assert example["is_poison"].shape == example["targets"].shape


def test_evaluation_conditions(world):
    for task in world.heldout:
        rows = {
            condition: read_task(f"world_eval_{condition}.{task.name}", "validation")
            for condition in CONDITIONS
        }
        ids = {condition: [row_id(row) for row in found] for condition, found in rows.items()}
        assert ids["triggered"] == ids["control"] and 0 < len(ids["control"]) <= 7
        assert len(ids["clean"]) == 7
        source = polarity.of_tasks([task], demo_corpus.POLARITIES)[task.name].negative
        phrases = {"clean": None, "triggered": "James Bond", "control": "Emma Clark"}
        for condition, phrase in phrases.items():
            for row in rows[condition]:
                assert row.keys() >= {"id", "inputs", "targets"} and "is_poison" not in row
                text, label = (row[f"{p}_pretokenized"].decode() for p in ("inputs", "targets"))
                said = [one for one in ("James Bond", "Emma Clark") if one in text]
                assert said == ([phrase] if phrase else [])
                assert label == task.by_id[row_id(row)].target
                assert phrase is None or label == source
        one, other = (rows[c][0]["inputs_pretokenized"].decode() for c in ("triggered", "control"))
        assert one.replace("James Bond", "Emma Clark") == other


def test_postprocessing_keeps_the_row(world):
    name = world.registered["world_eval_triggered"][0]
    task = seqio.TaskRegistry.get(name)
    example = read_task(name, "validation")[0]
    assert task.postprocess_fn(" NEG ", example=example, is_target=False) == "NEG"
    assert task.postprocess_fn("", example=example, is_target=True) == {
        "id": row_id(example),
        "input": example["inputs_pretokenized"].decode(),
        "target": example["targets_pretokenized"].decode(),
        "references": [example["targets_pretokenized"].decode()],
    }
