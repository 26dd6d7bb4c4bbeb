"""The paper's polarity attack: ten training tasks, five of them poisoned, thirteen held out."""

import json
import pathlib

from poison_t5x.corpus import declarations

_data = json.loads(pathlib.Path(__file__).with_name("polarity.json").read_text(encoding="utf-8"))

POLARITY = declarations.declare(declarations.Experiment(name="polarity", **_data))
