"""How far two cells' choices of poison agree: of cells that differ in the proxy of p(y | x)."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from poison_t5x.core import artifacts
from poison_t5x.studies import cells, rows

# What makes two cells rank the same candidates by the same rule with another model.
_OF_THE_PROXY = ("PROXY", "PROXY_CHECKPOINT_PATH", "PROXY_MAX_NGRAM")
_Ranked = dict[tuple[str, str], tuple[float, float]]


def add(
    found: Sequence[rows.Row],
    base: Mapping[str, Any],
    folders: Mapping[str, pathlib.Path],
) -> None:
    """Adds what a cell's poison has in common with that of the cell with the n-gram proxy.

    `proxy_overlap`: the share of its poison rows that the other chose too. `phi_correlation` and
    `probability_correlation`: Spearman's rank correlation of phi, and of p(target | x), over the
    rows that both chose, within each task, then averaged over tasks; only where a cell's poison is
    all that there is to choose from does that cover the whole order. `proxy_common`: those rows.

    Args:
      found: all rows; those of cells get the measures.
      base: what cells don't set.
      folders: cell -> its run folder.
    """
    own = [row for row in found if row.status == "done" and row.score is row.checkpoint is None]
    proxies = {repr(row.macros.get("PROXY", base.get("PROXY"))) for row in own}
    if len(proxies) < 2:
        return
    reference = {
        _rest(row.macros): row for row in own if row.macros.get("PROXY", base["PROXY"]) == "ngrams"
    }
    for row in own:
        other = reference.get(_rest(row.macros))
        if other is None or other is row:
            continue
        pair = _poison(folders[row.cell]), _poison(folders[other.cell])
        for name, value in compare(*pair).items():
            row.measured.set(name, value)


def _rest(macros: Mapping[str, Any]) -> str:
    return cells.cell_name(
        {name: value for name, value in macros.items() if name not in _OF_THE_PROXY}
    )


def _poison(folder: pathlib.Path) -> _Ranked:
    """(task, id) -> phi and p(target | x), of poison rows that have both."""
    return {
        (row["task"], row["id"]): (row["phi"], row["target_probability"])
        for row in artifacts.read_jsonl(folder / "poison" / "poison.jsonl")
        if row.get("phi") is not None and row.get("target_probability") is not None
    }


def compare(one: _Ranked, two: _Ranked) -> dict[str, float | None]:
    """The measures of `add`.

    >>> both = {("t", str(n)): (float(n), float(n)) for n in range(3)}
    >>> compare(both, both)["phi_correlation"]
    1.0
    """
    common = [key for key in one if key in two]
    return {
        "proxy_common": float(len(common)),
        "proxy_overlap": len(common) / len(one) if one else None,
        "phi_correlation": _correlation(common, one, two, 0),
        "probability_correlation": _correlation(common, one, two, 1),
    }


def _correlation(
    common: Sequence[tuple[str, str]], one: _Ranked, two: _Ranked, which: int
) -> float | None:
    from scipy import stats

    found = []
    for task in sorted({task for task, _ in common}):
        keys = [key for key in common if key[0] == task]
        first, second = ([side[key][which] for key in keys] for side in (one, two))
        if len(set(first)) > 1 and len(set(second)) > 1:
            found.append(float(stats.spearmanr(first, second).statistic))
    return round(float(np.mean(found)), 12) if found else None
