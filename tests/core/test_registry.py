"""Variants by name: found without being imported, and added by whoever names a module."""

import sys

import pytest

from poison_t5x.core import errors

SCORE = '''
from shop import SCORES

@SCORES.register("{name}")
class Score:
    """Counts {name}.

    More.
    """

    needs: str = "water"
'''


@pytest.fixture
def scores(tmp_path, monkeypatch):
    """A registry whose package `shop.scores` registers 'apples' and 'pears'."""
    (tmp_path / "shop" / "scores").mkdir(parents=True)
    (tmp_path / "shop" / "scores" / "__init__.py").touch()
    (tmp_path / "shop" / "__init__.py").write_text(
        "from poison_t5x.core import registry\nSCORES = registry.Registry('score', 'shop.scores')\n"
    )
    for name in ("apples", "pears"):
        (tmp_path / "shop" / "scores" / f"{name}.py").write_text(SCORE.format(name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    import shop

    yield shop.SCORES
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def test_ours_are_known_before_they_are_imported(scores):
    assert scores.summaries() == {"apples": "Counts apples.", "pears": "Counts pears."}
    assert scores.constant("pears", "needs") == "water"
    assert scores.constant("pears", "weight", 3) == 3
    assert "shop.scores.pears" not in sys.modules
    assert scores.get("pears", "SCORES").__name__ == "Score"
    assert "shop.scores.pears" in sys.modules and "shop.scores.apples" not in sys.modules


def test_a_users_own_comes_after_ours(scores):
    @scores.register("mine")
    class Mine:
        """Mine."""

    assert scores.names() == ("apples", "pears", "mine")
    assert scores.constant("mine", "needs", "none") == "none"
    assert scores.summaries()["mine"] == "Mine." and scores.get("mine", "SCORES") is Mine


def test_two_of_one_name_are_refused(scores):
    for name in ("apples", "mine", "mine"):
        register = scores.register(name)
        if name == "mine" and "mine" not in scores.names():
            register(type("First", (), {}))
            continue
        with pytest.raises(errors.InputError, match=f"score '{name}' is registered twice"):
            register(type("Second", (), {}))


@pytest.mark.parametrize("name", ["aples", None, ["apples"], 3])
def test_an_unknown_name_is_refused_with_the_nearest(scores, name):
    with pytest.raises(errors.InputError, match=r"SCORES: no score .*there are apples, pears"):
        scores.get(name, "SCORES")
