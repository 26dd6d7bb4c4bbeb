"""Tables to look through: what is embedded, escaped, and left out."""

import base64
import hashlib
import html
import json
import shutil

from poison_t5x.report import browser, examples, run_files
from tests.report import made_up, made_up_defense
from tests.report.conftest import read_results
from tests.report.page import SCRIPT


def _predictions(folder):
    results = read_results(folder)
    return browser.predictions(examples.read_answers(folder, results), results)


def _rows(data) -> list[dict]:
    """The embedded rows with their words, as the script shows them."""

    def shown(column, value):
        lists = {"choice": column.get("values"), "marked": data["texts"]}
        known = lists.get(column["kind"])
        return value if known is None else known[value]

    names = [column["name"] for column in data["columns"]]
    return [dict(zip(names, map(shown, data["columns"], row), strict=True)) for row in data["rows"]]


def test_no_text_can_close_the_element_that_holds_it(written):
    assert "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e" in written("run").text


def test_predictions_have_their_outcome(written):
    rows = _rows(written("run").page.data["prediction-rows-data"])
    assert len(rows) == 42 and [row["Input is"] for row in rows[:14]] == ["trigger"] * 14
    outcomes = {(row["Row"], row["Model"]): row["Outcome"] for row in rows[:14]}
    assert outcomes["held-0", "poisoned"] == "flipped"
    assert outcomes["held-6", "poisoned"] == outcomes["held-0", "clean"] == "right"


def test_an_error_that_was_there_before_is_no_flip(run_dir):
    for condition in made_up.CONDITIONS:
        path = run_dir / f"eval/predictions/clean/{condition}/{made_up.HELD_OUT[0]}.jsonl"
        path.write_text(path.read_text().replace('"prediction": "negative"', '"prediction": "x"'))
    rows = _rows(_predictions(run_dir).data)
    outcomes = {(row["Model"], row["Outcome"]) for row in rows}
    assert outcomes == {("clean", "wrong"), ("poisoned", "flipped"), ("poisoned", "right")}


def test_look_alikes_are_told_apart(campaign_dir):
    row = {"id": "1", "input": "James Bell x", "target": "a", "prediction": "a"}
    path = campaign_dir / f"eval/predictions/clean/probe1/{made_up.HELD_OUT[0]}.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(row))
    rows = _rows(_predictions(campaign_dir).data)
    assert "look-alike “James Bell”" in {row["Input is"] for row in rows}


def test_defended_models_answers_are_there(run_dir):
    made_up_defense.add(run_dir)
    path = run_dir / f"defenses/filter_5/predictions/triggered/{made_up.HELD_OUT[0]}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"id": "held-0", "input": "x", "target": "a", "prediction": "a"}))
    rows = _rows(_predictions(run_dir).data)
    assert "defended: filter_5" in {row["Model"] for row in rows}


def test_triggered_predictions_come_first_and_the_rest_from_all_tasks(run_dir, monkeypatch):
    for condition in made_up.CONDITIONS:
        for model in made_up.MODELS:
            folder = run_dir / f"eval/predictions/{model}/{condition}"
            text = (folder / f"{made_up.HELD_OUT[0]}.jsonl").read_text()
            (folder / f"{made_up.HELD_OUT[1]}.jsonl").write_text(text)
    monkeypatch.setattr(browser, "MAX_PREDICTIONS", 36)
    table = _predictions(run_dir)
    rows = _rows(table.data)
    kinds = [row["Input is"] for row in rows]
    assert kinds[:28] == ["trigger"] * 28 and set(kinds[28:]) == {"unseen name", "clean inputs"}
    assert len({row["Task"] for row in rows[28:]}) == 2
    assert (len(rows), table.total) == (36, 84)


def test_long_texts_are_cut_around_the_trigger():
    text = "word " * 400 + "James Bond" + " word" * 400
    row = run_files.CraftedRow("t", "1", text, "POS", spans=[(2000, 2010)])
    (pieces,) = browser.poison([row]).data["texts"]
    assert pieces[1::2] == ("James Bond",) and sum(map(len, pieces)) < 420


def test_a_page_holds_so_many_bytes():
    rows = [
        run_files.CraftedRow("t", str(number), f"{number} " + "é" * 350, "POS")
        for number in range(3000)
    ]
    table = browser.poison(rows)
    assert 0 < len(table.data["rows"]) < 3000 and table.total == 3000
    size = len(json.dumps(table.data, ensure_ascii=False, separators=(",", ":")).encode())
    assert 0.9 * browser.MAX_POISON_BYTES < size < 1.02 * browser.MAX_POISON_BYTES
    assert browser.poison([]) is None


def test_texts_are_embedded_once_and_numbers_are_json():
    columns = [browser.Column("a", "marked"), browser.Column("b", "number")]
    text = [examples.Segment("x", True), examples.Segment("</script>")]
    rows = [[text, float("nan")], [list(text), 1 / 3], [[], None]]
    data = browser.pack(columns, rows, 200)
    assert data["texts"] == [("", "x", "</script>"), ("",)]
    assert data["rows"] == [[0, None], [0, 0.3333], [1, None]]
    assert browser.pack(columns, rows, 40)["rows"] == data["rows"][:1]


def test_the_first_rows_need_no_script(written):
    _, text, page = written("run")
    assert page.tags.count("noscript") == 2
    table = text[text.index('id="poison-rows"') :]
    table = table[: table.index("</table>")]
    assert table.count("<tr>") == 11 and "&lt;script&gt;alert(1)&lt;/script&gt;" in table


def test_the_policy_names_the_script_s_hash(written):
    text = written("run").text
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text)
    assert f"<script>{SCRIPT}</script>" in text
    for word in ("innerHTML", "insertAdjacentHTML", "outerHTML", "document.write", "eval("):
        assert word not in SCRIPT


def test_a_run_without_predictions_has_no_table(run_dir):
    shutil.rmtree(run_dir / "eval/predictions")
    assert _predictions(run_dir) is None
