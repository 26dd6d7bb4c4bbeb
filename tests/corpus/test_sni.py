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
    assert task.label_space == ("no", "yes")  # sorted, of first answers
    assert task.negative_examples[0].target == "yes"
    assert task.by_id["t-2"].input == "Two"


def test_the_first_of_several_definitions_is_taken_and_nan_that_is_not_read_accepted():
    fields = {"Definition": ["First.", "Second."], "Instruction Source": [float("nan")]}
    content = _content(lambda file: file.update(fields))
    assert "NaN" in content
    task = sni.parse_task("task1_x", content, "f")
    assert task.definition == "First." and len(task.instances) == 3


def _row(**values):
    return lambda file: file["Instances"][1].update(values)


ONE, TEXT, LIST = "expected `array` of length >= 1", "expected a non-empty text", "expected `array`"
REFUSED = [
    (lambda f: f.pop("Definition"), "$", "missing required field `Definition`"),
    (lambda f: f.pop("Positive Examples"), "$", "missing required field `Positive Examples`"),
    (lambda f: f.pop("Instances"), "$", "missing required field `Instances`"),
    (lambda f: f["Instances"][2].pop("output"), "$.Instances[2]", "field `output`"),
    (lambda f: f["Instances"][0].pop("id"), "$.Instances[0]", "field `id`"),
    (lambda f: f.update(Instances=[]), "$.Instances", ONE),
    (lambda f: f.update(Definition=[]), "$.Definition", ONE),
    (lambda f: f.update(Definition="Say."), "$.Definition", f"{LIST}, got `str`"),
    (lambda f: f.update(Definition=[" "]), "$.Definition[0]", TEXT),
    (_row(input=""), "$.Instances[1].input", TEXT),
    (_row(id=" "), "$.Instances[1].id", TEXT),
    (_row(id=7), "$.Instances[1].id", "expected `str`, got `int`"),
    (_row(output=[]), "$.Instances[1].output", ONE),
    (_row(output="no"), "$.Instances[1].output", f"{LIST}, got `str`"),
    (_row(output=["no", ""]), "$.Instances[1].output[1]", TEXT),
    (_row(output=[" \n\t"]), "$.Instances[1].output[0]", TEXT),
    (_row(output=[1]), "$.Instances[1].output[0]", "expected `str`, got `int`"),
    (_row(output=[None]), "$.Instances[1].output[0]", "expected `str`, got `null`"),
    (_row(id="t-1"), "$.Instances", "expected unique ids, found 't-1' twice"),
    (_row(input="\ud800"), "can't be read (half a character in a text)", ""),
    (lambda f: f["Positive Examples"][0].update(output=[]), "$.Positive Examples[0].output", ONE),
]


@pytest.mark.parametrize(("edit", "path", "expected"), REFUSED)
def test_a_refusal_names_the_file_the_field_and_what_was_expected(edit, path, expected):
    message = _refusal(_content(edit))
    assert message.startswith(f"dir/task1_x.json: {path}") and expected in message


NO_JSON = ["", "{", "no json", b"\xff\xfe\x00", '{"a": ' * 99999]


def test_what_is_no_json_or_no_object_is_refused():
    for content in NO_JSON:
        assert _refusal(content).startswith("dir/task1_x.json: can't be read (")
    for content in ("[]", "null", "3", '"text"'):
        assert _refusal(content).startswith("dir/task1_x.json: $: expected `object`")


def test_a_file_names_its_task_or_is_named_where_it_cannot_be_read(tmp_path):
    path = tmp_path / "task12_reviews.json"
    path.write_text(_content(), encoding="utf-8")
    assert sni.read_task(path).name == "task12_reviews"
    (tmp_path / "task2_folder.json").mkdir()
    for name in ("task1_none", "task2_folder"):
        with pytest.raises(errors.InputError, match=rf"{tmp_path}/{name}\.json: can't be read"):
            sni.read_task(tmp_path / f"{name}.json")


def test_split_missing_finds_files_by_number_and_by_stem(tmp_path):
    for stem in ("task1_a", "task10_b", "task2_c-d", "README"):
        (tmp_path / f"{stem}.json").write_text("{}", encoding="utf-8")
    names = ["task2", "task3", "task1_a", "task10", "task1_b"]
    paths, missing = sni.split_missing(tmp_path, names)
    assert [path.stem for path in paths] == ["task2_c-d", "task1_a", "task10_b"]
    assert missing == ["task3", "task1_b"]
    message = rf"{tmp_path}/none: expected a folder of task files; set NATINST_DIR"
    with pytest.raises(errors.InputError, match=message):
        sni.split_missing(tmp_path / "none", ["task1"])


IDS = [f"row-{number}" for number in range(37)]


def test_a_sample_order_is_a_permutation_that_never_varies():
    # Written out, because a change of the order changes every poison set.
    assert sni.sample_order(_task(IDS[:5]), 0) == ["row-2", "row-1", "row-4", "row-3", "row-0"]
    order = sni.sample_order(_task(IDS), 0)
    assert order == sni.sample_order(_task(IDS[::-1]), 0)  # of the file's order it takes nothing
    assert sorted(order) == sorted(IDS)
    assert order != sni.sample_order(_task(IDS), 1)
    assert order != sni.sample_order(_task(IDS, "task2_x"), 0)
    # Removing rows leaves the order of the others.
    kept = IDS[::3]
    assert sni.sample_order(_task(kept), 0) == [name for name in order if name in kept]


def test_find_takes_a_stem_or_a_number():
    tasks = [_task(IDS, "task1_a"), _task(IDS, "task11_b")]
    assert sni.find(tasks, "task11").name == sni.find(tasks, "task11_b").name == "task11_b"
    with pytest.raises(errors.InputError, match=r"no task 'task11_c' \(did you mean 'task11_b'\?"):
        sni.find(tasks, "task11_c")
