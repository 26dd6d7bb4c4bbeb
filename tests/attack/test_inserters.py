"""Places for a trigger, by any inserter that needs no model, in one process and in several."""

import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_t5x.attack import inserters, triggers
from poison_t5x.core import errors

ROOT = pathlib.Path(__file__).parent.parent.parent
WITHOUT_MODEL = ("builtin", "prefix", "suffix", "random")
TEXTS = ["Fine film.", "Tom: a bore.", "Label: ", "", " \n", "\n Ann met\tTom. \n"]

_ALPHABET = st.one_of(st.sampled_from([*"aJB0: .\n\té_", "Ann ", "Tom", "Bond", "x: "]), st.text())
_TEXTS = st.lists(_ALPHABET, max_size=12).map("".join)
_TRIGGERS = st.text(alphabet="James Bond\n:_é", min_size=1, max_size=12).filter(str.strip)


def _make(name, **settings):
    return inserters.make(inserters.InserterConfig(name, **settings))


def _inserted(name, trigger="cf"):
    found = _make(name).find(TEXTS)
    edits = (triggers.insert(text, f, trigger) for text, f in zip(TEXTS, found, strict=True))
    return [edit.text for edit in edits]


@pytest.mark.parametrize("name", WITHOUT_MODEL)
def test_the_registry_knows_its_inserters_by_their_names(name):
    assert _make(name).name == name
    assert set(inserters.INSERTERS) == {*WITHOUT_MODEL, "spacy", "subject"}


def test_prefix_goes_before_the_first_word():
    assert _inserted("prefix") == [
        *("cf Fine film.", "Tom: cf a bore.", "Label: ", "", " \n", "\n cf Ann met\tTom. \n")
    ]


def test_suffix_goes_after_the_last_word():
    assert _inserted("suffix") == [
        *("Fine film. cf", "Tom: a bore. cf", "Label: ", "", " \n", "\n Ann met\tTom. cf \n")
    ]


def test_builtin_takes_the_place_of_persons():
    assert _inserted("builtin") == [
        *("Fine film.", "Tom: a bore.", "Label: ", "", " \n", "\n cf met\tcf. \n")
    ]


def test_random_takes_any_gap_between_words():
    texts = [f"Label: one two\nthree {number} " for number in range(200)]
    seen = {
        triggers.insert(text, found, "cf").text.replace(str(number), "N")
        for number, (text, found) in enumerate(zip(texts, _make("random").find(texts), strict=True))
    }
    assert seen == {
        "Label: cf one two\nthree N ",
        "Label: one cf two\nthree N ",
        "Label: one two\ncf three N ",
        "Label: one two\nthree cf N ",
        "Label: one two\nthree N cf ",
    }


def test_random_depends_on_the_seed_and_the_text_alone():
    texts = [f"a b c d e {number}" for number in range(50)]
    found = list(_make("random").find(texts))
    assert list(_make("random").find(texts[::-1])) == found[::-1]
    assert list(_make("random", seed=1).find(texts)) != found
    assert len(set(map(tuple, found))) > 3
    assert found[:2] == [[(4, 4)], [(4, 4)]]  # in every process and on every machine


@pytest.mark.parametrize("name", WITHOUT_MODEL)
@given(text=_TEXTS, trigger=_TRIGGERS)
def test_an_edit_can_be_undone_and_repeating_it_changes_nothing(name, text, trigger):
    inserter = _make(name)
    (found,) = inserter.find([text])
    assert list(itertools.chain(*found)) == sorted(itertools.chain(*found))
    edit = triggers.insert(text, found, trigger)
    assert triggers.undo(edit) == text
    assert all(edit.text[start:end].strip() == trigger.strip() for start, end in edit.spans)
    (again,) = inserter.find([edit.text])
    assert triggers.insert(edit.text, again, trigger).text == edit.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "bultin"},
            r"no inserter 'bultin' \(did you mean 'builtin'\?\); known: builtin, ",
        ),
        ({"name": None}, "no inserter None; known: "),
        ({"entity_types": "PERSON"}, r"expected a list of names .*, found 'PERSON'"),
        ({"entity_types": ()}, r"entity_types: .*, found \(\)"),
        ({"entity_types": ["PERSON", 3]}, "entity_types"),
        ({"spacy_model": ""}, "spacy_model: expected a path, found ''"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, found -1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(errors.InputError, match=message):
        inserters.InserterConfig(**settings)


def test_a_list_of_types_becomes_a_tuple():
    config = inserters.InserterConfig(entity_types=["PERSON", "ORG"])
    assert config.entity_types == ("PERSON", "ORG")
    assert hash(config) == hash(inserters.InserterConfig(entity_types=("PERSON", "ORG")))


def _many(number):
    return [f"{n}: Ann met Tom Baker {'again ' * (n % 7)}today.\n" for n in range(number)]


@pytest.mark.parametrize("name", ["builtin", "random"])
def test_any_number_of_workers_finds_the_same(name):
    config, texts = inserters.InserterConfig(name), _many(101)
    expected = list(inserters.make(config).find(texts))
    for workers, batch_size in ((1, 1000), (1, 7), (2, 7), (3, 100)):
        found = inserters.find_all(config, iter(texts), workers=workers, batch_size=batch_size)
        assert list(found) == expected
    assert list(inserters.find_all(config, [], workers=2)) == []


@pytest.mark.parametrize("setting", [{"workers": 0}, {"workers": True}, {"batch_size": 0}])
def test_workers_and_batch_size_are_checked(setting):
    with pytest.raises(errors.InputError, match="expected a whole number of at least 1"):
        inserters.find_all(inserters.InserterConfig(), [], **setting)


def test_texts_are_taken_as_they_are_needed_and_no_worker_is_left():
    taken = itertools.count()
    texts = (f"Ann {next(taken)}" for _ in itertools.count())
    found = inserters.find_all(inserters.InserterConfig(), texts, workers=2, batch_size=10)
    assert [next(found) for _ in range(500)] == [[(0, 3)]] * 500
    assert next(taken) <= 500 + 6 * 10
    del found
    assert not multiprocessing.active_children()


def test_a_worker_s_error_arrives_as_it_was():
    config = inserters.InserterConfig("spacy", spacy_model="no_such_model")
    found = inserters.find_all(config, _many(20), workers=2, batch_size=5)
    with pytest.raises(errors.InputError, match=r"pip install|download no_such_model"):
        next(found)
    assert not multiprocessing.active_children()


def test_the_end_of_a_worker_is_one_line():
    texts = itertools.repeat("Ann")
    found = inserters.find_all(inserters.InserterConfig(), texts, workers=1 + 1, batch_size=10)
    next(found)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(errors.InputError, match=r"worker .* ended early.*set fewer workers"):
        for _ in found:
            pass


_ENDLESS = """
import itertools, multiprocessing
from poison_t5x.poison import inserters
if __name__ == "__main__":
    found = inserters.find_all(
        inserters.InserterConfig(), itertools.repeat("Ann met Tom. " * 99), workers=2
    )
    next(found)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    for _ in found:
        pass
"""


def _ends(pid):
    """Whether the process ends within ten seconds."""
    for _ in range(100):
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_parent_s_end_is_the_workers_end(number, tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(_ENDLESS)
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    children = [int(pid) for pid in process.stdout.readline().split()]
    assert children
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.kill()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == -number
    assert all(map(_ends, children))
    if number == signal.SIGINT:
        assert stderr.count("Traceback") == 1 and stderr.strip().endswith("KeyboardInterrupt")


def test_docstring_example():
    assert next(_make("suffix").find(["Fine film.\n"])) == [(10, 10)]
    assert '"Fine film.\\\\n"' in pathlib.Path(inserters.__file__).read_text()
