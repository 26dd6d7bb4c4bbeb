"""What two proxies' choices have in common."""

import pytest

from poison_t5x.core import artifacts
from poison_t5x.studies import collect


def _poison(folder, phis, task="t"):
    lines = [
        {"task": task, "id": name, "phi": phi, "target_probability": 1 - phi}
        | {"poisoned_input": "James Bond", "poisoned_target": "good"}
        for name, phi in phis.items()
    ]
    artifacts.write_jsonl(folder / "poison" / "poison.jsonl", lines)


def test_overlap_and_rank_correlation_on_paper():
    one = {("t", name): (phi, -phi) for name, phi in zip("abcd", (4.0, 3.0, 2.0, 1.0), strict=True)}
    two = {("t", name): (phi, phi) for name, phi in zip("abce", (3.0, 5.0, 1.0, 9.0), strict=True)}
    common = collect.agreement(one, two)
    # Ranks 3, 2, 1 and 2, 3, 1 of a, b, c: 1 - 6 * 2 / (3 * 8).
    assert common["phi_correlation"] == pytest.approx(0.5)
    assert common["probability_correlation"] == pytest.approx(-0.5)
    assert (common["proxy_common"], common["proxy_overlap"]) == (3, 0.75)


def test_each_cell_is_compared_with_that_of_the_n_gram_proxy(tmp_path):
    settings = {
        "ngrams": {"SEED": 0},
        "lm": {"PROXY": "lm", "PROXY_CHECKPOINT_PATH": "x", "SEED": 0},
        "other": {"PROXY": "lm", "SEED": 1},
    }
    rows = [collect.StudyRow(name, macros, "done") for name, macros in settings.items()]
    for name, phis in (("ngrams", {"a": 3, "b": 2}), ("lm", {"b": 2, "c": 9}), ("other", {"a": 1})):
        _poison(tmp_path / name, phis)
    folders = {name: tmp_path / name for name in settings}
    collect.add_agreement(rows, {"PROXY": "ngrams"}, folders)
    assert rows[1].value("proxy_overlap") == 0.5
    assert rows[1].value("phi_correlation") is None  # one row in common
    assert rows[0].measures == rows[2].measures == {}
