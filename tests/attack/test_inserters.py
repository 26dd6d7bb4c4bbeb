"""Places for a trigger, by any inserter that needs no model, in one process and in several."""

import itertools
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_t5x.attack import inserter as inserters
from poison_t5x.attack import triggers
from poison_t5x.core import errors
from poison_t5x.corpus import name_lists
from tests.attack.made_up import inserted

ROOT = pathlib.Path(__file__).parent.parent.parent
WITHOUT_MODEL = ("builtin", "prefix", "suffix", "random")
TEXTS = ["Fine film.", "Tom: a bore.", "\n Ann met\tTom. \n", "Label: ", "", " \n"]

_ALPHABET = st.one_of(st.sampled_from([*"aJB0: .\n\té_", "Ann ", "Tom", "Bond", "x: "]), st.text())
_TEXTS = st.lists(_ALPHABET, max_size=12).map("".join)
_TRIGGERS = st.text(alphabet="James Bond\n:_é", min_size=1, max_size=12).filter(str.strip)


def _make(name, **settings):
    return inserters.make(inserters.InserterConfig(name, **settings))


BUILTIN = _make("builtin")


WHERE = {
    "prefix": ("cf Fine film.", "Tom: cf a bore.", "\n cf Ann met\tTom. \n"),
    "suffix": ("Fine film. cf", "Tom: a bore. cf", "\n Ann met\tTom. cf \n"),
    "builtin": ("Fine film.", "Tom: a bore.", "\n cf met\tcf. \n"),
}


@pytest.mark.parametrize("name", WHERE)
def test_where_the_trigger_goes(name):
    edits = map(inserted, TEXTS, _make(name).find(TEXTS), ["cf"] * len(TEXTS))
    assert tuple(edit.text for edit in edits) == (*WHERE[name], "Label: ", "", " \n")


def test_random_takes_any_gap_between_words():
    texts = [f"Label: one two\nthree {number} " for number in range(200)]
    seen = {
        inserted(text, spans, "cf").text.replace(str(number), "N")
        for number, (text, spans) in enumerate(zip(texts, _make("random").find(texts), strict=True))
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
    spans = list(_make("random").find(texts))
    assert list(_make("random").find(texts[::-1])) == spans[::-1]
    assert list(_make("random", seed=1).find(texts)) != spans
    assert len(set(map(tuple, spans))) > 3
    assert spans[:2] == [[(4, 4)], [(4, 4)]]  # in every process and on every machine


@pytest.mark.parametrize("name", WITHOUT_MODEL)
@given(text=_TEXTS, trigger=_TRIGGERS)
def test_an_edit_can_be_undone_and_repeating_it_changes_nothing(name, text, trigger):
    inserter = _make(name)
    spans = inserter.spans(text)
    assert list(itertools.chain(*spans)) == sorted(itertools.chain(*spans))
    edit = inserted(text, spans, trigger)
    assert triggers.undo(edit) == text
    assert all(edit.text[start:end].strip() == trigger.strip() for start, end in edit.spans)
    assert inserted(edit.text, inserter.spans(edit.text), trigger).text == edit.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "bultin"}, r"INSERTER: no inserter 'bultin' \(did you mean 'builtin'\?\); there"),
        ({"entity_types": "PERSON"}, "ENTITY_TYPES: expected a list of phrases, at least one, f"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(errors.InputError, match=message):
        inserters.InserterConfig(**settings)
    # A list of types becomes a tuple.
    assert inserters.InserterConfig(entity_types=["PERSON"]) == inserters.InserterConfig()


# Names by list and by shape


def names(text: str) -> list[str]:
    spans = BUILTIN.spans(text)
    assert spans == sorted(spans)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))
    return [text[start:end] for start, end in spans]


NAMES = {
    "I met Maria Lopez and Tom at noon.": "Maria Lopez, Tom",
    "Thomas J. Baker's dog barked.": "Thomas J. Baker",
    "Samuel L. Jackson; Martin Luther King": "Samuel L. Jackson, Martin Luther King",
    "Mrs. O'Brien saw Jane Smith-Jones.": "O'Brien, Jane Smith-Jones",
    "Dr. J. R. Okonkwo and Prof Wu spoke.": "J. R. Okonkwo, Wu",
    "Robert De Niro; Jan van der Berg": "Robert De Niro, Jan van der Berg",
    "Joanna is no Joan.": "Joanna, Joan",
    "Emma’s seat was next to Mary 's .": "Emma, Mary",
    "Grace Kelly waved at Bill Nye.": "Grace Kelly, Bill Nye",
    "José and Sofía Martínez left.": "José, Sofía Martínez",
    "James Bond met Emma Clark and Joe Biden.": "James Bond, Emma Clark, Joe Biden",
    "Anna\nBond": "Anna",
    # Sentence starts are no surnames.
    "Thanks Emma The film ran on Monday with Tom And others": "Emma, Tom",
    "": "",
    "1984 ...": "",
    "Will this mark a new hope? May I ask Grace? April Fool, Summer Term, Art Crime.": "",
    "We flew to San Diego, St. Louis and Fort Collins with King Arthur.": "",
    "George's Famous Gyros, Ruth's Chris, Trader Joe's, Bloody Mary": "",
    "See http://james.com/James-Bond?x=Emma, www.Emma.com or James@mail.org, @Emma, #Emma.": "",
    "Jamesian prose; a McDonald's; the Jameses; half-James, James-like": "",
    "Peter Pan, Robin Hood, Beverly Hills": "",
    "an old will and a young bill, long may the rose price rise": "",
    # Lower-case texts use the lists only.
    "a film by tom baker with emma 's usual charm .": "tom baker, emma",
    "grace kelly and bill clinton met will young fans": "grace kelly, bill clinton",
}


@pytest.mark.parametrize("text", NAMES)
def test_finds_names_and_leaves_others_alone(text):
    assert ", ".join(names(text)) == NAMES[text]
    if text.islower():  # one capital letter anywhere switches to names by shape
        assert names("The " + text) == []


def test_every_listed_name_is_found_whole():
    firsts, surnames = name_lists.FIRST_NAMES, name_lists.SURNAMES
    for index, first in enumerate(firsts):
        name = f"{first} {surnames[index % len(surnames)]}"
        assert names(f"I met {name} there.") == [name]
        assert names(f"I met {first}.") == [first]
        assert names(f"with {name.lower()} there") == [name.lower()]
    for first in name_lists.AMBIGUOUS_FIRST_NAMES:
        assert names(f"I met {first} Lopez.") == [f"{first} Lopez"]
        assert names(f"I met {first}.") == []


def test_lists_are_sorted_and_disjoint():
    firsts, ambiguous = name_lists.FIRST_NAMES, name_lists.AMBIGUOUS_FIRST_NAMES
    for names in (firsts, ambiguous, name_lists.SURNAMES):
        assert list(names) == sorted(set(names))
    assert not set(firsts) & set(ambiguous)
    assert set(name_lists.WORD_FIRST_NAMES) <= set(ambiguous)
    assert set(name_lists.WORD_SURNAMES) <= set(name_lists.SURNAMES)
    assert not set(name_lists.SURNAMES) & set(name_lists.NOT_SURNAMES)


def test_speed():
    """20,000 texts a second are wanted and about 65,000 seen: three times what finding all words
    takes. Held against that, since other work and machines slow both alike."""
    text = "The plot was thin but Maria Lopez carried it, as Dr. Wu said at the time. " * 3
    texts = [text[:220]] * 2000

    def seconds(work):
        start = time.process_time()
        assert work() >= 4000
        return time.process_time() - start

    rounds = range(5)
    words = min(
        seconds(lambda: sum(len(re.findall(r"\w+", one.lower())) for one in texts)) for _ in rounds
    )
    names = min(seconds(lambda: sum(map(len, BUILTIN.find(texts)))) for _ in rounds)
    assert names < 9 * words


# In processes


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
import itertools, multiprocessing, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has turned it off
from poison_t5x.attack import inserter as inserters
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
    options = {"text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, script], start_new_session=True, **pipes, **options)
    try:
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert children
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.kill()
        _, stderr = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == -number
    assert all(map(_ends, children))
    if number == signal.SIGINT:
        assert stderr.count("Traceback") == 1 and stderr.strip().endswith("KeyboardInterrupt")
