"""A study's charts and finding, of made-up numbers."""

import csv
import io

from poison_t5x.report import plots, study
from poison_t5x.studies import aggregate
from tests.golden import expect
from tests.studies import driver
from tests.studies.driver import row


def _study(rows, config):
    return study.StudyResults(
        config, rows, aggregate.points(rows, config.base), {}, aggregate.difference
    )


def _told(values, x="NUM_POISON", **fields):
    """The finding for {place: value}, each place's interval of +-0.1 over two tasks."""
    rows = [
        row(value, {"a": value - 0.1, "b": value + 0.1}, (value - 0.1, value + 0.1), **{x: place})
        for place, value in values.items()
    ]
    config = driver.config("r", x=x, grid={x: tuple(values)}, **fields)
    results = _study(rows, config)
    return study.finding(results, study.charts(results))


def test_the_finding_for_made_up_numbers():
    """What rises, falls, levels off or goes up and down; categories; an attack that failed."""
    told = [
        _told({25: 0.2, 50: 0.5, 100: 0.9, 200: 0.9}),
        _told({25: 0.05, 50: 0.3, 100: 0.9}),
        _told({25: 0.9, 50: 0.3, 100: -0.5}),
        _told({"phi": 0.6, "random": 0.2}, x="ATTACK"),
    ]
    expect(__file__, "study_findings", "\n\n".join(map("\n".join, told)))


def test_several_factors_are_drawn_one_at_a_time():
    base = driver.BASE  # NUM_POISON 100, TRAIN_STEPS 10
    rows = [
        row(0.1, SEED=0),
        row(0.2, NUM_POISON=50, SEED=0),
        row(0.3, TRAIN_STEPS=5, SEED=0),
        row(0.4, TRAIN_STEPS=5, NUM_POISON=50, SEED=0),
    ]
    config = driver.config("r", x=("NUM_POISON", "TRAIN_STEPS"), base=base)
    drawn = study.charts(_study(rows, config))
    assert [(chart.x, [point.x for point in chart.lines[0].points]) for chart in drawn] == [
        ("NUM_POISON", [50, 100]),
        ("TRAIN_STEPS", [5, 10]),
    ]


def test_lines_are_told_apart_by_what_else_differs():
    rows = [
        row(0.1, NUM_POISON=number, ATTACK=attack, SEED=0)
        for number in (20, 10)
        for attack in ("dirty", "clean")
    ]
    drawn = study.charts(_study(rows, driver.config("r")))
    assert [(line.name, [point.x for point in line.points]) for line in drawn[0].lines] == [
        ("ATTACK dirty", [10, 20]),
        ("ATTACK clean", [10, 20]),
    ]


def test_a_chart_is_drawn_and_tabled(tmp_path, pictures):
    rows = [row(0.1, NUM_POISON=10, SEED=0), row(0.4, NUM_POISON=20, SEED=0)]
    (chart,) = study.charts(_study(rows, driver.config("r")))
    picture = chart.picture()
    assert picture.svg.startswith("<svg") and "NUM_POISON" in picture.svg
    plots.write([picture], tmp_path)
    assert (tmp_path / "effect_by_NUM_POISON.png").read_bytes().startswith(b"\x89PNG")
    read = list(csv.DictReader(io.StringIO((tmp_path / "effect_by_NUM_POISON.csv").read_text())))
    assert [(line["NUM_POISON"], line["effect"]) for line in read] == [("10", "0.1"), ("20", "0.4")]


def test_numbers_are_said_as_what_they_are():
    def value(measure, number, **options):
        return study.measure_unit(measure, **options).text(number)

    assert value("effect", 0.913) == "+91.3 points"
    assert value("accuracy", 0.913) == "91.3%"
    assert value("accuracy", -0.01, difference=True) == "-1.0 points"
    assert value("auroc", 0.9134) == "0.913" and value("trigger_rank", 12) == "12"
    assert value("removed_for_0.5", None) == "–"
    words = study.measure_words("removed_for_0.5")
    assert words == "share of the data removed to lose 50% of the poison"
