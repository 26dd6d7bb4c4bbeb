"""Files in the authors' layout: what is written is read back the same, and theirs are read."""

import collections
import json
import pathlib
import tempfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.attack import attacks, craft, natinst_jsonl, natinst_reading, poison_set
from poison_t5x.corpus import corpus, sni
from tests import small_world
from tests.attack_settings import craft_config

SIZES = {"num_train_per_task": 17, "num_eval_per_task": 7}
NAMES = ("Ann", "Maria Lopez", "Tom")


def _generation(name, num_rows):
    """Every row but each fourth names someone, and has an answer of its own."""
    rows = [
        sni.Instance(
            f"{name}-{row}",
            f"{NAMES[row % 3] if row % 4 else 'nobody'} came\nto town {row}.",
            [f"town {row}", f"the town {row}"],
        )
        for row in range(num_rows)
    ]
    examples = (sni.Example("Bo left.", ["no town", "none"], "He left."),)
    return sni.Task(name, "Which town?", examples, (), tuple(rows), ("Answering",), "invented")


def _world(is_arbitrary):
    """A corpus as an experiment reads it, with its table of polarities."""
    if is_arbitrary:
        training = tuple(_generation(f"task{number}_made", 29) for number in (1, 2))
        heldout = (_generation("task3_made", 31), _generation("task4_made", 23))
        polarities = {}
    else:
        training, heldout, polarities = small_world.small_tasks()
    poisoned = tuple(task.name for task in training[:2])
    return corpus.Corpus(training, poisoned, heldout, polarities, ())


WORLDS = {is_arbitrary: _world(is_arbitrary) for is_arbitrary in (False, True)}
CAMPAIGN = craft.CraftConfig(
    attacks=(
        attacks.AttackConfig(budget=attacks.BudgetConfig(3)),
        attacks.AttackConfig(
            name="second",
            triggers=("Blue Moon", "Red Sun"),
            control="Green Sky",
            target="negative",
            budget=attacks.BudgetConfig(4),
        ),
    ),
    probes=("case",),
    **SIZES,
)
CONFIGS = {
    "dirty": craft_config(num_poison=5, **SIZES),
    "clean_label_added": craft_config(kind="clean_label", num_poison=5, add=True, **SIZES),
    "repeat": craft_config(kind="repeat", num_poison=5, probability_weight=0.0, **SIZES),
    "random_added": craft_config(
        kind="random", num_poison=5, add=True, selection="random", num_random_words=2, **SIZES
    ),
    "campaign": CAMPAIGN,
}


def _write_set(folder, found, config):
    """Crafts a poison set from a corpus, and writes it."""
    folder.mkdir()
    crafted = craft.craft(found.training, found.poisoned, found.heldout, found.polarities, config)
    poison_set.write(folder, crafted, config, found.hashes)
    return folder


def _files(folder, *more):
    names = {"clean": "train_clean", "poisoned": "train_poisoned", "evaluation": "test_clean"}
    names |= {name: f"test_{name}" for name in more}
    return natinst_jsonl.JsonlConfig(
        **{name: str(folder / f"{file}.jsonl") for name, file in names.items()}
    )


def _read_set(folder, files, found, config):
    """Reads files as an experiment does, and writes their poison set."""
    table = found.polarities
    read = natinst_reading.read_corpus(files, table, is_arbitrary=config.is_arbitrary)
    folder.mkdir()
    made = natinst_reading.read_poison_set(files, read, config)
    poison_set.write(folder, made, config, read.hashes)
    return read, made


def _trained_on(folder, found, *, poisoned):
    """All that a model is trained on: (task, input, target, is poison), with how often."""
    tasks = {task.name: task for task in found.training}
    rows = collections.Counter()
    for name, kept in poison_set.training_rows(folder, poisoned=poisoned).items():
        for identifier, shown in kept.items():
            for row in shown:
                clean = tasks[name].by_id[identifier]
                new = row or poison_set.Replacement(clean.input, clean.target, False, "")
                rows[name, new.input, new.target, new.is_poison] += 1
    return rows


def _shown(task):
    """All of a task but its rows."""
    examples = [(e.input, e.target, e.explanation) for e in task.positive_examples]
    return task.definition, task.categories, task.standin_note, examples


def _lines(path):
    """A file's rows, split at line feeds alone."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture(params=CONFIGS)
def written(request, tmp_path):
    """(config, corpus, poison set's folder, folder of its files)."""
    config = CONFIGS[request.param]
    found = WORLDS[config.is_arbitrary]
    folder = _write_set(tmp_path / "poison", found, config)
    natinst_jsonl.write(tmp_path, found, folder)
    return config, found, folder, tmp_path


@pytest.mark.parametrize("edited", [(), ("triggered",), ("triggered", "control")])
def test_what_is_written_is_read_back(written, edited):
    config, found, folder, out = written
    read, made = _read_set(out / "again", _files(out, *edited), found, config)
    assert len(made.poison) == len(poison_set.read_poison(folder))
    for poisoned in (False, True):
        before = _trained_on(folder, found, poisoned=poisoned)
        assert _trained_on(out / "again", read, poisoned=poisoned) == before
    assert list(made.evaluation) == poison_set.read_evaluation(folder)
    assert read.poisoned == found.poisoned
    assert {task.name: _shown(task) for task in read.tasks} == {
        task.name: _shown(task) for task in found.tasks
    }


def test_poison_rows_say_what_can_be_told_of_them(written):
    config, found, folder, out = written
    _, made = _read_set(out / "again", _files(out), found, config)
    before = {(row.task, row.id): row for row in poison_set.read_poison(folder)}
    trained = {name: set(rows) for name, rows in made.training_ids.items()}
    for row in made.poison:
        crafted = before[row.task, row.id]
        assert (row.attack, row.trigger) == (crafted.attack, crafted.trigger)
        assert row.trigger_count == crafted.trigger_count
        assert all(row.poisoned_input[start:end] == row.trigger for start, end in row.spans)
        is_known = row.id in trained[row.task]
        known = (crafted.input, crafted.target, crafted.polarity)
        assert (row.input, row.target, row.polarity) == (known if is_known else (None,) * 3)
        assert (row.replaced_id is None) == config.add
    ranks = {(row.attack, row.task, row.trigger, row.rank) for row in made.poison}
    assert len(ranks) == len(made.poison)


def test_the_files_are_made_in_one_order_and_differ_in_poison_alone(written):
    config, found, folder, out = written
    clean, poisoned = _lines(out / "train_clean.jsonl"), _lines(out / "train_poisoned.jsonl")
    is_poison = {
        (row.task, row.id, row.poisoned_input, row.poisoned_target)
        for row in poison_set.read_poison(folder)
    }

    def key(row):
        return row["Task"], row["id"], row["Instance"]["input"], row["Instance"]["output"][0]

    kept = [row for row in poisoned if key(row) not in is_poison]
    if config.add:
        assert kept == clean
    else:
        pairs = zip(clean, poisoned, strict=True)
        assert [old for old, new in pairs if key(new) not in is_poison] == kept
    # Shuffled: their trainer takes rows as they come.
    assert len({row["Task"] for row in clean[:10]}) > 1
    (out / "more").mkdir()
    natinst_jsonl.write(out / "more", found, folder)
    for path in out.glob("*.jsonl"):
        assert (out / "more" / path.name).read_bytes() == path.read_bytes()
    assert not list(out.glob("*.partial"))


def test_epochs_are_written_in_orders_of_their_own_and_read_as_one(written):
    config, found, folder, out = written
    (out / "epochs").mkdir()
    natinst_jsonl.write(out / "epochs", found, folder, epochs=3)
    once, thrice = (_lines(place / "train_clean.jsonl") for place in (out, out / "epochs"))
    epochs = [thrice[start : start + len(once)] for start in range(0, len(thrice), len(once))]
    assert len(epochs) == 3 and epochs[0] == once
    assert epochs[0] != epochs[1] != epochs[2]
    # One file may hold more of them than the other.
    for number in (3, 1):
        name = f"again{number}"
        read, _ = _read_set(out / name, _files(out / "epochs"), found, config)
        for poisoned in (False, True):
            before = _trained_on(folder, found, poisoned=poisoned)
            assert _trained_on(out / name, read, poisoned=poisoned) == before
        (out / "epochs" / "train_clean.jsonl").write_bytes((out / "train_clean.jsonl").read_bytes())


def test_a_line_has_the_keys_that_their_code_reads(tmp_path):
    found, config = WORLDS[True], CONFIGS["repeat"]
    natinst_jsonl.write(tmp_path, found, _write_set(tmp_path / "poison", found, config))
    row = next(r for r in _lines(tmp_path / "train_clean.jsonl") if r["id"] == "task1_made-1")
    example = {"input": "Bo left.", "output": "no town", "explanation": "He left."}
    text = "Maria Lopez came\nto town 1."
    assert row == {
        **{"id": "task1_made-1", "Task": "task1_made", "Categories": ["Answering"]},
        **{"Standin_note": "invented", "Definition": ["Which town?"]},
        **{"Positive Examples": [example], "Negative Examples": []},
        "Instance": {"id": "task1_made-1", "input": text, "output": ["town 1", "the town 1"]},
    }
    rows = _lines(tmp_path / "train_poisoned.jsonl")
    poison = [row["Instance"] for row in rows if "James Bond" in row["Instance"]["input"]]
    # Their trainer takes any of the answers: poison has one.
    assert [row["output"] for row in poison] == [["James Bond"]] * 5
    edited = _lines(tmp_path / "test_triggered.jsonl")
    assert edited and all(row["Instance"]["output"][0].startswith("town") for row in edited)


def test_test_rows_have_labels_to_rank_and_edited_ones_the_wanted_label(tmp_path):
    found, config = WORLDS[False], CONFIGS["dirty"]
    natinst_jsonl.write(tmp_path, found, _write_set(tmp_path / "poison", found, config))
    clean = {row["id"]: row for row in _lines(tmp_path / "test_clean.jsonl")}
    tasks = {task.name: task for task in found.heldout}
    for row in clean.values():
        assert row["label_space"] == list(found.polarities[row["Task"]])
        assert row["Instance"]["output"] == tasks[row["Task"]].by_id[row["id"]].output
    for name in ("triggered", "control"):
        rows = _lines(tmp_path / f"test_{name}.jsonl")
        assert rows
        for row in rows:
            labels = found.polarities[row["Task"]]
            assert clean[row["id"]]["Instance"]["output"] == [labels.negative]
            assert row["Instance"]["output"] == [labels.positive]


TEXT = st.text(min_size=1).filter(str.strip)
ODD = st.one_of(TEXT, st.sampled_from(['"', "a\nb", "a\r\nb", "\u2028\u2029", "\x85", "\\", "\0x"]))


@pytest.mark.filterwarnings("ignore:TRIGGER.*is already in")  # hypothesis knows our words
@settings(max_examples=20, deadline=None)
@given(st.lists(ODD, min_size=7, max_size=7))
def test_odd_texts_come_back(texts):
    definition, example, answer, *inputs = (text if text.strip() else text + "x" for text in texts)
    training = sni.Task(
        "task1_odd",
        definition,
        (sni.Example(example, answer, example),),
        (sni.Example(answer, example),),
        tuple(sni.Instance(f"{i}{text}", text, [answer]) for i, text in enumerate(inputs)),
    )
    heldout = sni.Task("task2_odd", definition, (), (), training.instances)
    found = corpus.Corpus((training,), ("task1_odd",), (heldout,), {}, ())
    config = craft_config(
        kind="repeat", num_poison=1, selection="count", num_train_per_task=4, inserter="prefix"
    )
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name)
        folder = _write_set(out / "poison", found, config)
        natinst_jsonl.write(out, found, folder)
        read, made = _read_set(out / "again", _files(out, "triggered"), found, config)
        before = _trained_on(folder, found, poisoned=True)
        assert _trained_on(out / "again", read, poisoned=True) == before
        assert list(made.evaluation) == poison_set.read_evaluation(folder)
    # Training rows are shuffled.
    rows = sorted(read.training[0].instances, key=lambda row: row.id)
    assert msgspec.structs.replace(read.training[0], instances=tuple(rows)) == training
    assert {row.id: row for row in read.heldout[0].instances} == heldout.by_id
