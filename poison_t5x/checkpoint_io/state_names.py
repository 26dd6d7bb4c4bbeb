"""Names of a training state's tensors, as T5X and as we write them.

T5X's tree is {'target': parameters, 'state': {'step', 'param_states'}}. Under param_states an optax
optimiser has its own tree ('0/mu/<parameter>', '0/count', '2/count'), and T5X's Adafactor has
'<parameter>/v_row' and so on, where optax's, which we use, has '0/v_row/<parameter>'.
"""

from collections.abc import Iterable
from typing import NamedTuple

Path = tuple[str, ...]

SLOTS = {"adamw": ("mu", "nu"), "adafactor": ("v_row", "v_col", "v")}
MOMENTUM = "m"  # of T5X's Adafactor; ours has none
COUNT = "count"
STEP = ("state", "step")
_TARGET, _STATES = ("target",), ("state", "param_states")


class Names(NamedTuple):
    """Which tensor of a checkpoint's tree is what.

    Attributes:
      params: parameter -> path in the tree.
      slots: 'v_row/<parameter>' and so on, and 'count' -> path in the tree.
      optimizer: 'adamw', 'adafactor' or None.
      step: path of the step, or None.
    """

    params: dict[str, Path]
    slots: dict[str, Path]
    optimizer: str | None
    step: Path | None


def sort(paths: Iterable[Path]) -> Names:
    """Sorts the paths of a checkpoint's tree; those of other optimisers' states are left out."""
    params: dict[str, Path] = {}
    slots: dict[str, Path] = {}
    step = None
    known = {slot for names in SLOTS.values() for slot in names}
    for path in paths:
        rest = path[len(_STATES) :]
        if path[:1] == _TARGET:
            params["/".join(path[1:])] = path
        elif path == STEP:
            step = path
        elif path[:2] != _STATES:
            continue
        elif rest[0] == "0" and rest[1:2] == (COUNT,):
            slots[COUNT] = path
        elif rest[0] == "0" and rest[1] in known and len(rest) > 2:
            slots["/".join(rest[1:])] = path
        elif rest[-1] in (*SLOTS["adafactor"], MOMENTUM) and not rest[0].isdigit():
            slots["/".join((rest[-1], *rest[:-1]))] = path
    optimizer = next(
        (
            name
            for name, wanted in SLOTS.items()
            if any(slot.startswith(f"{wanted[0]}/") for slot in slots)
        ),
        None,
    )
    return Names(params, slots if optimizer else {}, optimizer, step)


def tree_path(optimizer: str, slot: str, *, factored_last: bool) -> Path:
    """Where a slot such as 'v_row/encoder/…' or 'count' stands in a tree that is written.

    Args:
      factored_last: as T5X's own Adafactor has it, rather than optax's.
    """
    kind, *parameter = slot.split("/")
    if optimizer == "adafactor" and factored_last and parameter:
        return (*_STATES, *parameter, kind)
    return (*_STATES, "0", kind, *parameter)


def param_path(parameter: str) -> Path:
    """Where a parameter stands in a tree that is written."""
    return (*_TARGET, *parameter.split("/"))
