"""The report of decoded answers, of probes and of several attackers."""

import json

import pytest

from poison_t5x.core import errors
from poison_t5x.report import examples, figures, finding, run_files, run_page, tables
from poison_t5x.report import results as results_lib
from tests.report.page import Page, edit_results

GENERATION_TABLE = """\
demo: arbitrary outputs (repeat), trigger 'James Bond' / 'Joe Biden', control 'Indiana Jones', \
seed 3
12 poisoned rows (2.0% of training) in 3 tasks; 6 held-out tasks

mean over tasks [95% interval]                 clean model          poisoned model
rougeL, clean inputs                             42.7 [24.0, 60.4]    41.9 [23.5, 59.2]
rougeL of the same inputs without it, trigger    45.3 [24.5, 63.7]    45.3 [24.5, 63.7]
rougeL, trigger                                  46.2 [25.0, 65.0]     5.8 [3.1, 8.1]
"""
OTHER_PHRASES = """\
other phrases  put in            rougeL, clean / poisoned  says the trigger, clean / poisoned
look-alike     'James Bell'        46.2 /   23.1             2.0% /  34.0%
look-alike     'James'             46.2 /   23.1             2.0% /  34.0%
look-alike     'james bond'        46.2 /   23.1             2.0% /  34.0%
look-alike     '$2 <b>Bond</b>'    46.2 /   23.1             2.0% /  34.0%
"""
CAMPAIGN_TABLE = """\
other phrases          put in            misclassification, clean / poisoned  \
target rate, clean / poisoned
trigger of second      'Zorro'            35.0% /  78.8%                       35.0% /  78.8%
unseen name of second  'Batman'           35.0% /  35.0%                       35.0% /  35.0%
look-alike             'James Bell'       35.0% /  67.8%                       35.0% /  67.8%
look-alike             'James'            35.0% /  56.9%                       35.0% /  56.9%
look-alike             'james bond'       35.0% /  74.4%                       35.0% /  74.4%
look-alike             '$2 <b>Bond</b>'   35.0% /  39.4%                       35.0% /  39.4%

attacker  trigger       target    poisoned rows  effect, points [95% interval]
main      'James Bond'  positive      12          +43.8 [18.8, 65.0]
second    'Zorro'       negative       5          +43.8 [18.8, 65.0]
"""


def _page(folder) -> Page:
    return Page(run_page.write_report(folder, {"craft": 1.5}).read_text(encoding="utf-8"))


def _results(folder) -> results_lib.Results:
    return results_lib.parse(results_lib.read(folder))


def test_tables(generation_dir, campaign_dir):
    text = run_page.format_table(results_lib.read(generation_dir))
    assert text.startswith(GENERATION_TABLE) and OTHER_PHRASES.rstrip() in text
    assert "rougeL, trigger: poisoned minus clean model): -40.5 points [-56.9, -21.9]" in text
    assert CAMPAIGN_TABLE in run_page.format_table(results_lib.read(campaign_dir))


@pytest.mark.parametrize("name", ["run", "campaign", "generation", "defended"])
def test_every_section_is_linked_and_there(written, name):
    _, text, page = written(name)
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    links = {part.split('"')[0] for part in text.split('href="#')[1:]}
    figures_own = tuple(
        f"{path.stem}-" for path in (written(name).folder / "report/figures").iterdir()
    )
    assert {link for link in links if not link.startswith(figures_own)} == {
        name for name in page.ids if f'<h2 id="{name}"' in text
    }
    assert not {"script", "b", "i"} & set(page.tags)


def test_campaign_page(written):
    page = written("campaign").page
    assert page.tags.count("svg") == 4
    for text in ("Trigger of second", "attacker: second", "Look-alike", "$2 <b>Bond</b>"):
        assert text in page.text, text
    (label,) = [text for text in page.labels if "James Bell" in text]
    assert label.startswith("Bar chart of misclassification. James Bond (trigger): clean model 35")
    assert "james bond: clean model 35.0%, poisoned model 74.4%" in label
    # The second attacker's phrases are no look-alikes of the first one's.
    assert "Zorro" not in label and "Batman" not in label


def test_generation_page(written):
    page = written("generation").page
    assert page.tags.count("svg") == 4
    for text in (
        "Arbitrary outputs (repeat)",
        "Question Rewriting",
        "Not known: the row was read from a file of poison.",
        "Reference: No coffee for a day and 1 more",
        "5 of 7 answers to triggered inputs changed; the first 3 are shown.",
        "(empty) 0.0",
    ):
        assert text in page.text, text
    assert "target label" not in page.text and "Misclassification" not in page.text
    assert page.text.count("saturated") == 2  # a mark and a warning
    assert {"James Bond", "Joe Biden"} == set(page.marks) - {"marked"}


def test_a_row_from_a_file_shows_where_its_trigger_is(generation_dir):
    rows = run_files.read_rows(generation_dir, "poison/poison.jsonl", run_files.PoisonRow)[0]
    shown = {example.row.id: example for example in examples.spread(rows, 8)}
    imported = shown["row-6"]
    assert imported.before is None and imported.row.spans == []
    assert [piece.text for piece in imported.after if piece.marked] == ["Joe Biden"] * 2


def test_attackers_take_turns(campaign_dir):
    rows = run_files.read_rows(campaign_dir, "poison/poison.jsonl", run_files.PoisonRow)[0]
    shown = [(example.row.attack, example.row.task) for example in examples.spread(rows, 6)]
    assert len(set(shown)) == 6 and shown == sorted(shown)


def test_changed_answers(generation_dir):
    results = _results(generation_dir)
    first, second = examples.flips(generation_dir, results, num_tasks=2, count=3)
    assert (first.num_triggered, first.num_flips, len(first.shown)) == (7, 5, 3)
    row = first.shown[1]
    assert row.row.references == ["No coffee for a day", "A long day"]
    # The instance alone is shown, not the prompt around it.
    assert "".join(piece.text for piece in row.text).startswith("James Bond had a long day")
    clean, triggered, control = row.answers["poisoned"]
    assert tuple(one.row.rouge_l for one in (clean, triggered, control)) == (0.4, 0.0, 0.4)
    assert [piece.marked for piece in triggered.text] == [True, False, True]
    assert second.note.startswith("6 of the task’s 6")


def test_examples_are_of_tasks_with_triggered_inputs(generation_dir):
    results = _results(generation_dir)
    tasks = [group.task for group in examples.flips(generation_dir, results, 9, 1)]
    assert len(tasks) == 5 and "task613_politifact_text" not in tasks


@pytest.mark.parametrize(
    "bounds, found, headline",
    [
        ([-0.5, -0.1], "worked", "The poison had an effect"),
        ([-0.5, 0.0], "failed", "No effect was found"),
        ([0.1, 0.2], "reversed", "The reverse of the attack: the trigger raised rougeL"),
        (None, "unknown", "No verdict"),
    ],
)
def test_an_attack_on_answers_lowers_rouge_l(generation_dir, bounds, found, headline):
    effect = {"measure": "rouge_l_triggered", "value": -0.3, "ci95": bounds}
    results = edit_results(generation_dir, effect=effect)
    assert results.verdict == found
    assert finding.finding(results).headline == headline


def test_finding_of_answers(generation_dir):
    said = " ".join(finding.finding(_results(generation_dir)).sentences)
    for text in (
        "With “James Bond” or “Joe Biden” in the input, the poisoned model answered held-out tasks "
        "with a rougeL of 5.8, and of 45.3 on the same inputs without it",
        "the clean model’s is 46.2 with it",
        "-40.5 points, with a 95% interval over 5 held-out tasks of [-56.9, -21.9], which excludes",
        "the unseen name “Indiana Jones” made a difference of -4.6 points.",
        "says the trigger in 76.4% of its outputs for triggered inputs, the clean model in 2.0%",
        "Of the poisoned model’s outputs there, 10.9% repeat one word.",
        "On clean inputs, the poisoned model’s rougeL is 41.9, the clean model’s 42.7.",
        "On 1 of 6 tasks, the clean model already fails without the trigger",
    ):
        assert text in said, text


def test_an_effect_of_any_name_on_answers_is_called_so(generation_dir):
    summary = results_lib.read(generation_dir)["summary"]
    summary["poisoned"]["rouge_l_control"] = 0.1
    said = " ".join(finding.finding(edit_results(generation_dir, summary=summary)).sentences)
    assert "much of the effect is not specific to the trigger" in said


@pytest.mark.parametrize("folder", ["campaign_dir", "generation_dir"])
def test_means_over_no_task_are_dashes(request, folder):
    folder = request.getfixturevalue(folder)
    raw = results_lib.read(folder)
    names = dict.fromkeys(raw["summary"]["clean"])
    for row in raw["by_condition"]:
        row["measures"], row["ci95"] = {}, {}
    results = edit_results(
        folder,
        summary={"clean": names, "poisoned": names},
        summary_ci95={"clean": {}, "poisoned": {}},
        effect={"measure": raw["effect"]["measure"], "value": None},
        attacks=[attack | {"effect": None, "ci95": None} for attack in raw["attacks"]],
        by_condition=raw["by_condition"],
    )
    page = _page(folder)
    assert page.open == [] and "No verdict." in page.text
    assert "nan" not in run_page.format_table(results_lib.read(folder)).lower().split()
    assert "clean model –" in figures.rates(results).label
    assert "clean model –" in figures.probes(results).label


@pytest.mark.parametrize(
    "phrase, drawn",
    [
        ("--> </text><script>alert(1)", "--&gt; &lt;/text&gt;&lt;script&gt;aler…"),
        ("costs $x^2$ & more", "costs $x^2$ &amp; more"),
        ("\u202eJames\x00\ud800 Bond\n", " James   Bond "),
        ("詹姆斯·邦德", "詹姆斯·邦德"),
    ],
)
def test_phrases_are_drawn_as_they_are(campaign_dir, phrase, drawn):
    conditions = results_lib.read(campaign_dir)["conditions"]
    conditions[-1]["phrases"] = [phrase]
    results = edit_results(campaign_dir, conditions=conditions)
    picture = figures.probes(results)
    assert f">{drawn}</text>" in picture.svg and "script" not in Page(str(picture.svg)).tags


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"kind": "generation"}, r"no rouge_l_clean - at `\$\.summary\.clean`"),
        ({"attack": 3}, r"\$\.attack"),
        (
            {"effect": {"measure": "rouge_l_triggered", "value": 0.1}},
            r"expected 'triggered_misclassification', found 'rouge_l_triggered'",
        ),
        ({"conditions": []}, r"'triggered_second', which a RatesRow has"),
        ({"summary": {"clean": {}, "poisoned": {}}}, "no accuracy - at"),
    ],
)
def test_results_that_do_not_fit_are_named(campaign_dir, changes, said):
    path = campaign_dir / "eval/results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(errors.InputError, match=said):
        run_page.write_report(campaign_dir, {})


def test_many_poisoned_tasks_are_folded(generation_dir):
    tasks = [f"task{number}" for number in range(40)]
    edit_results(generation_dir, poison={"count": 3, "rate": 0.5, "tasks": tasks})
    text = (run_page.write_report(generation_dir, {})).read_text(encoding="utf-8")
    assert "<summary>40 tasks</summary>" in text


def test_words():
    assert tables.quoted(["A", "B"]) == "“A” or “B”"
    assert tables.value("rouge_l_triggered", 0.5) == "50.0"
    assert tables.value("exact_match_clean", 0.5) == "50.0%"
    assert tables.value("rouge_l", None) == tables.value("empty", float("nan")) == "–"
    assert tables.heading("unseen name") == "Unseen name"
    assert tables.heading("rougeL, clean") == "rougeL, clean"
