"""Settings of a poison set with one attacker, by field, whatever part of them it is in."""

import dataclasses

from poison_t5x.attack import attacks, craft, inserter

_PARTS = {
    "budget": attacks.BudgetConfig,
    "score": attacks.ScoreConfig,
    "inserter": inserter.InserterConfig,
}


def craft_config(**settings) -> craft.CraftConfig:
    """`craft_config(num_poison=5, triggers='Ann', seed=1)`; `inserter` is an inserter's name."""
    rest = dict(settings)
    parts = {}
    if "inserter" in rest:
        rest["name"] = rest.pop("inserter")
    for part, kind in _PARTS.items():
        fields = {field.name for field in dataclasses.fields(kind)} - {"seed"}
        parts[part] = kind(**{name: rest.pop(name) for name in list(rest) if name in fields})
    fields = {field.name for field in dataclasses.fields(craft.CraftConfig)}
    outer = {name: rest.pop(name) for name in list(rest) if name in fields}
    return craft.CraftConfig(attacks=(attacks.AttackConfig(**rest, **parts),), **outer)
