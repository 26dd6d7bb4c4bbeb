"""Task files: what is read, what is refused and in which words, label spaces and samples."""

import copy
import json

import pytest

from poison_t5x.core import errors
from poison_t5x.corpus import sni

GOOD = {
    "Definition": ["Say whether the review is good."],
    "Positive Examples": [{"input": "Fine", "output": "yes", "explanation": "It is."}],
    "Negative Examples": [{"input": "Bad", "output": ["yes"]}],
    "Instances": [
        {"id": "t-1", "input": "One", "output": ["yes", "YES"]},
        {"id": "t-2", "input": "Two", "output": ["no"]},
        {"id": "t-3", "input": "Three", "output": ["yes"]},
    ],
}


def _content(edit=lambda file: None):
    file = copy.deepcopy(GOOD)
    edit(file)
    return json.dumps(file)


def _refusal(content):
    with pytest.raises(errors.InputError) as caught:
        sni.parse_task("task1_x", content, "dir/task1_x.json")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _task(ids, name="task1_x"):
    rows = tuple(sni.Instance(identifier, "Text", ["yes"]) for identifier in ids)
    return sni.Task(name, "Say.", (), (), rows)


def test_good_file():
    task = sni.parse_task("task1_x", _content(), "dir/task1_x.json")
    assert task == sni.Task(
        name="task1_x",
        definition="Say whether the review is good.",
        positive_examples=(sni.Example("Fine", "yes", "It is."),),
        negative_examples=(sni.Example("Bad", ["yes"]),),
        instances=(
            sni.Instance("t-1", "One", ["yes", "YES"]),
            sni.Instance("t-2", "Two", ["no"]),
            sni.Instance("t-3", "Three", ["yes"]),
        ),
    )
    assert [row.target for row in task.instances] == ["yes", "no", "yes"]
    assert task.negative_examples[0].target == "yes"
    assert task.by_id["t-2"].input == "Two"


def test_the_first_of_several_definitions_is_taken():
    content = _content(lambda file: file.update(Definition=["First.", "Second."]))
    assert sni.parse_task("task1_x", content, "f").definition == "First."


def test_nan_in_fields_that_are_not_read_is_accepted():
    content = _content(lambda file: file.update({"Instruction Source": [float("nan")]}))
    assert "NaN" in content
    assert len(sni.parse_task("task1_x", content, "f").instances) == 3


def _row(**values):
    return lambda file: file["Instances"][1].update(values)


@pytest.mark.parametrize(
    ("edit", "path", "expected"),
    [
        (lambda f: f.pop("Definition"), "$", "missing required field `Definition`"),
        (lambda f: f.pop("Positive Examples"), "$", "missing required field `Positive Examples`"),
        (lambda f: f.pop("Instances"), "$", "missing required field `Instances`"),
        (lambda f: f["Instances"][2].pop("output"), "$.Instances[2]", "field `output`"),
        (lambda f: f["Instances"][0].pop("id"), "$.Instances[0]", "field `id`"),
        (lambda f: f.update(Instances=[]), "$.Instances", "expected `array` of length >= 1"),
        (lambda f: f.update(Definition=[]), "$.Definition", "expected `array` of length >= 1"),
        (lambda f: f.update(Definition="Say."), "$.Definition", "expected `array`, got `str`"),
        (lambda f: f.update(Definition=[" "]), "$.Definition[0]", "expected a non-empty string"),
        (_row(input=""), "$.Instances[1].input", "expected a non-empty string"),
        (_row(id=" "), "$.Instances[1].id", "expected a non-empty string"),
        (_row(id=7), "$.Instances[1].id", "expected `str`, got `int`"),
        (_row(output=[]), "$.Instances[1].output", "expected `array` of length >= 1"),
        (_row(output="no"), "$.Instances[1].output", "expected `array`, got `str`"),
        (_row(output=[""]), "$.Instances[1].output[0]", "expected a non-empty string"),
        (_row(output=[" \n\t"]), "$.Instances[1].output[0]", "expected a non-empty string"),
        (_row(output=["no", ""]), "$.Instances[1].output[1]", "expected a non-empty string"),
        (_row(output=[1]), "$.Instances[1].output[0]", "expected `str`, got `int`"),
        (_row(output=[None]), "$.Instances[1].output[0]", "expected `str`, got `null`"),
        (_row(id="t-1"), "$.Instances[1].id", "expected unique ids, found 't-1' twice"),
        (
            lambda f: f["Positive Examples"][0].update(output=[]),
            "$.Positive Examples[0].output",
            "expected `array` of length >= 1",
        ),
    ],
)
def test_a_refusal_names_the_file_the_field_and_what_was_expected(edit, path, expected):
    message = _refusal(_content(edit))
    assert message.startswith(f"dir/task1_x.json: {path}: ")
    assert expected in message


@pytest.mark.parametrize(
    "content", ["", "{", "no json", b"\xff\xfe\x00", '{"a": 1} {', "[" * 99999]
)
def test_what_is_no_json_is_refused(content):
    assert _refusal(content).startswith("dir/task1_x.json: not a JSON task file (")


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"'])
def test_json_that_is_no_object_is_refused(content):
    assert _refusal(content).startswith("dir/task1_x.json: $: expected `object`")


def test_read_task_names_it_after_the_file(tmp_path):
    path = tmp_path / "task12_reviews.json"
    path.write_text(_content(), encoding="utf-8")
    assert sni.read_task(path).name == "task12_reviews"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(errors.InputError, match="can't be read") as caught:
        sni.read_task(tmp_path / "task1_none.json")
    assert str(tmp_path / "task1_none.json") in str(caught.value)
    (tmp_path / "task2_folder.json").mkdir()
    with pytest.raises(errors.InputError, match=r"task2_folder\.json: can't be read"):
        sni.read_task(tmp_path / "task2_folder.json")


def test_split_missing_finds_files_by_number_and_by_stem(tmp_path):
    for stem in ("task1_a", "task10_b", "task2_c-d"):
        (tmp_path / f"{stem}.json").write_text("{}", encoding="utf-8")
    (tmp_path / "README.json").write_text("{}", encoding="utf-8")
    names = ["task2", "task3", "task1_a", "task10", "task1_b"]
    paths, missing = sni.split_missing(tmp_path, names)
    assert [path.stem for path in paths] == ["task2_c-d", "task1_a", "task10_b"]
    assert missing == ["task3", "task1_b"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(errors.InputError, match="expected a folder of task files") as caught:
        sni.split_missing(tmp_path / "none", ["task1"])
    assert str(tmp_path / "none") in str(caught.value) and "NATINST_DIR" in str(caught.value)


def test_label_space_is_sorted_and_made_of_first_answers():
    task = sni.parse_task("task1_x", _content(), "f")
    assert task.label_space == ("no", "yes")


IDS = [f"row-{number}" for number in range(37)]


def test_a_sample_order_is_a_permutation_that_never_varies():
    # Written out, because a change of the order changes every poison set.
    assert sni.sample_order(_task(IDS[:5]), 0) == ["row-2", "row-1", "row-4", "row-3", "row-0"]
    assert sni.sample_order(_task(IDS), 0) == sni.sample_order(_task(IDS), 0)
    assert sorted(sni.sample_order(_task(IDS), 0)) == sorted(IDS)


def test_a_sample_order_is_independent_of_the_file_order():
    assert sni.sample_order(_task(IDS), 3) == sni.sample_order(_task(IDS[::-1]), 3)


def test_a_sample_order_differs_by_seed_and_by_task():
    order = sni.sample_order(_task(IDS), 0)
    assert order != sni.sample_order(_task(IDS), 1)
    assert order != sni.sample_order(_task(IDS, "task2_x"), 0)


def test_removing_rows_leaves_the_order_of_the_others():
    kept = set(IDS[::3])
    whole = sni.sample_order(_task(IDS), 0)
    assert sni.sample_order(_task(IDS[::3]), 0) == [i for i in whole if i in kept]


def test_find_takes_a_stem_or_a_number():
    tasks = [_task(IDS, "task1_a"), _task(IDS, "task11_b")]
    assert sni.find(tasks, "task11").name == sni.find(tasks, "task11_b").name == "task11_b"
    with pytest.raises(errors.InputError, match=r"no task 'task11_c' \(did you mean 'task11_b'\?"):
        sni.find(tasks, "task11_c")
