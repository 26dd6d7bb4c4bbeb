"""Metrics are divided once, and written as lines that a person and a program can read."""

import json

import numpy as np
import pytest

from poison_t5x.core.errors import TrainingDivergedError
from poison_t5x.train import metrics_log


def _lines(model_dir) -> list[dict]:
    text = (model_dir / metrics_log.FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _write(model_dir, step: int, **scalars) -> None:
    writer = metrics_log.Writer(model_dir)
    writer.write(step, scalars)
    assert _lines(model_dir)[-1] == {"step": step, **scalars}  # while the run goes on
    writer.close()


def test_averager_weighs_by_weight_and_forgets_when_flushed():
    averager = metrics_log.Averager()
    averager.add({"loss": (np.float32(6.0), np.float32(2.0)), "rate": (0.1, 1.0)}, "step 1")
    averager.add({"loss": (np.float32(2.0), np.float32(6.0)), "rate": (0.3, 1.0)}, "step 2")
    # 8 nats over 8 tokens; the mean of the two means would be (3 + 1/3) / 2.
    assert averager.flush() == pytest.approx({"loss": 1.0, "rate": 0.2}, rel=1e-12)
    # Without a weight there is no mean.
    averager.add({"loss": (1.0, 1.0), "loss_poison": (0.0, 0.0)}, "step 3")
    assert averager.flush() == {"loss": 1.0}
    assert averager.flush() == {}


def test_averager_adds_in_float64():
    averager = metrics_log.Averager()
    for _ in range(1000):
        averager.add({"loss": (np.float32(0.1), np.float32(1.0))}, "a step")
    loss = averager.flush()["loss"]
    # A float32 sum of a thousand would be off by 1e-6 and more.
    assert loss == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert type(loss) is float  # which JSON can hold


def test_divergence_is_noticed_one_step_later_and_before_means_are_given():
    averager = metrics_log.Averager()
    averager.add({"loss": (np.float32("nan"), 1.0)}, "step 7 of 9")
    with pytest.raises(TrainingDivergedError, match="step 7 of 9: loss is nan; training stopped"):
        averager.add({"loss": (1.0, 1.0)}, "step 8 of 9")
    averager.add({"gradient_norm": (np.inf, 1.0)}, "step 8 of 9")
    with pytest.raises(TrainingDivergedError, match="step 8 of 9: gradient_norm is inf"):
        averager.flush()


def test_writer_writes_one_line_a_step_and_appends(tmp_path):
    for step in (10, 30):
        _write(tmp_path, step, loss=0.5, learning_rate=1e-5)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 30]
    assert any(path.name.startswith("events") for path in (tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("rest", ["", '{"step": 31, "lo', '{"step": 3', "{"])
def test_drop_after_drops_later_and_cut_short_lines(tmp_path, rest):
    metrics_log.drop_after(tmp_path, 10)
    assert list(tmp_path.iterdir()) == []
    whole = [{"step": step, "loss": step / 7} for step in (10, 10, 20, 30)]
    path = tmp_path / metrics_log.FILE
    path.write_text("".join(json.dumps(line) + "\n" for line in whole) + rest, encoding="utf-8")
    metrics_log.drop_after(tmp_path, 20)
    assert _lines(tmp_path) == whole[:3]
    _write(tmp_path, 30, loss=1.5)
    assert _lines(tmp_path) == [*whole[:3], {"step": 30, "loss": 1.5}]
    metrics_log.drop_after(tmp_path, 0)
    assert path.read_text(encoding="utf-8") == ""
