"""A run's settings, as its folder says them: gin macros, and the size of its network."""

import ast
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

# How and where a run was made, and what was done with it afterwards: nothing of its models.
_ASIDE = frozenset(
    (
        *("RUN_DIR", "MODEL_DIR", "STAGE_STORE_DIR", "TASK_CACHE_DIRS", "COMPILATION_CACHE_DIR"),
        *("CRAFT_WORKERS", "LOG_PERIOD", "EVAL_PERIOD", "EVAL_STEPS", "SAVE_PERIOD"),
        *("KEEP_CHECKPOINTS", "SCORES", "SCORE_STEPS", "SCORE_BATCH_SIZE", "AVAILABLE_SCORES"),
        *("REFERENCE_MODEL_DIR", "DEFENSE"),
    )
)
_ASIDE_PREFIXES = ("STUDY_", "SWEEP_", "FILTER_")


def macros(text: str) -> dict[str, Any]:
    """The macros of a `config.gin`: literals by their values, other values as their text.

    A value goes on in the lines that are indented. Settings that say nothing of the models, such as
    folders, are left out: of "SEED = 3" and "RUN_DIR = 'x'", {'SEED': 3} is left.
    """
    found = {}
    for match in re.finditer(r"^([A-Z][A-Z0-9_]*) = (.*(?:\n[ \t]+.*)*)", text, re.MULTILINE):
        name, value = match.groups()
        if name not in _ASIDE and not name.startswith(_ASIDE_PREFIXES):
            found[name] = _value(" ".join(value.replace("\\\n", "\n").split()))
    return found


def num_parameters(run_dir: pathlib.Path) -> int | None:
    """The parameters of the poisoned network, counted from its settings; None without them.

    T5 v1.1 (Raffel et al., 2020): embeddings, separate output logits unless they are tied, one
    relative position bias each in encoder and decoder, and norms without a bias.
    """
    try:
        text = (run_dir / "models/poisoned/settings.json").read_text(encoding="utf-8")
        return _count(json.loads(text)["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _count(model: Mapping[str, Any]) -> int:
    width, heads = model["emb_dim"], model["num_heads"]
    attention = 4 * width * heads * model["head_dim"]
    mlp = (len(model["mlp_activations"]) + 1) * width * model["mlp_dim"]
    encoder = model["num_encoder_layers"] * (attention + mlp + 2 * width)
    decoder = model["num_decoder_layers"] * (2 * attention + mlp + 3 * width)
    tables = model["vocab_size"] * width * (1 if model["logits_via_embedding"] else 2)
    # A relative position bias and a last norm, on either side.
    return encoder + decoder + tables + 2 * (model["relpos_num_buckets"] * heads + width)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
