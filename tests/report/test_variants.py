"""The report of decoded answers, of probes and of several attackers."""

import pytest

from poison_t5x.report import figures, run_page, tables
from poison_t5x.report import results as results_lib
from tests.report.page import Page, edit_results


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
    page = Page(run_page.write_report(folder, {}).read_text(encoding="utf-8"))
    assert page.open == [] and "No verdict." in page.text
    assert "nan" not in run_page.format_table(results_lib.read(folder)).lower().split()
    assert "clean model –" in figures.rates(results).label
    assert "clean model –" in figures.probes(results).label


@pytest.mark.parametrize(
    ("phrase", "drawn"),
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
    picture = figures.probes(edit_results(campaign_dir, conditions=conditions))
    assert f">{drawn}</text>" in picture.svg and "script" not in Page(str(picture.svg)).tags


def test_many_poisoned_tasks_are_folded(generation_dir):
    tasks = [f"task{number}" for number in range(40)]
    edit_results(generation_dir, poison={"count": 3, "rate": 0.5, "tasks": tasks})
    text = (run_page.write_report(generation_dir, {})).read_text(encoding="utf-8")
    assert "<summary>40 tasks</summary>" in text


def test_words():
    assert tables.value("rouge_l_triggered", 0.5) == "50.0"
    assert tables.value("exact_match_clean", 0.5) == "50.0%"
    assert tables.value("rouge_l", None) == tables.value("empty", float("nan")) == "–"
    assert tables.heading("unseen name") == "Unseen name"
    assert tables.heading("rougeL, clean") == "rougeL, clean"
    assert [tables.amount(number) for number in (0.25, 31.84, 1.25e-9, 12345, None)] == [
        *("0.25", "31.8", "1.25e-09", "12,345", "–")
    ]
    assert tables.DECIMAL.text(0.97561) == "0.976" and tables.DECIMAL.text(float("nan")) == "–"
    records = [{"name": 'a "b", c'}, {"name": "d", "value": 0.5}]
    assert tables.csv_text(records) == 'name,value\n"a ""b"", c",\nd,0.5\n'
