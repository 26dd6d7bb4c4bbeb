"""Metrics are divided once, and written as lines that a person and a program can read."""

import json

import numpy as np
import pytest

from poison_t5x.train import metrics_log


def _lines(model_dir) -> list[dict]:
    text = (model_dir / metrics_log.FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_averager_weighs_by_weight_and_forgets_when_flushed():
    averager = metrics_log.Averager()
    averager.add({"loss": (np.float32(6.0), np.float32(2.0)), "rate": (0.1, 1.0)})
    averager.add({"loss": (np.float32(2.0), np.float32(6.0)), "rate": (0.3, 1.0)})
    # 8 nats over 8 tokens; the mean of the two means would be (3 + 1/3) / 2.
    assert averager.flush() == pytest.approx({"loss": 1.0, "rate": 0.2}, rel=1e-12)
    # Without a weight there is no mean.
    averager.add({"loss": (1.0, 1.0), "loss_poison": (0.0, 0.0)})
    assert averager.flush() == {"loss": 1.0}
    assert averager.flush() == {}


def test_averager_adds_in_float64():
    averager = metrics_log.Averager()
    for _ in range(1000):
        averager.add({"loss": (np.float32(0.1), np.float32(1.0))})
    loss = averager.flush()["loss"]
    # A float32 sum of a thousand would be off by 1e-6 and more.
    assert loss == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert type(loss) is float  # which JSON can hold


def test_writer_writes_one_line_a_step_and_appends(tmp_path):
    for start in (0, 20):
        writer = metrics_log.Writer(tmp_path)
        writer.write(start + 10, {"loss": 0.5, "learning_rate": 1e-5})
        # Readable while the run goes on.
        assert _lines(tmp_path)[-1] == {"step": start + 10, "loss": 0.5, "learning_rate": 1e-5}
        writer.close()
    assert [line["step"] for line in _lines(tmp_path)] == [10, 30]
    assert any(path.name.startswith("events") for path in (tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("rest", ["", '{"step": 31, "lo', '{"step": 3', "{"])
def test_drop_after_drops_later_and_cut_short_lines(tmp_path, rest):
    whole = [{"step": step, "loss": step / 7} for step in (10, 20, 30)]
    path = tmp_path / metrics_log.FILE
    path.write_text("".join(json.dumps(line) + "\n" for line in whole) + rest, encoding="utf-8")
    metrics_log.drop_after(tmp_path, 20)
    assert _lines(tmp_path) == whole[:2]
    writer = metrics_log.Writer(tmp_path)
    writer.write(30, {"loss": 1.5})
    writer.close()
    assert _lines(tmp_path) == [*whole[:2], {"step": 30, "loss": 1.5}]


def test_drop_after_keeps_what_is_not_later(tmp_path):
    metrics_log.drop_after(tmp_path, 10)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / metrics_log.FILE
    text = '{"step": 10, "loss": 1.0}\n{"step": 10, "eval_loss": 2.0}\n'
    path.write_text(text, encoding="utf-8")
    metrics_log.drop_after(tmp_path, 10)
    assert path.read_text(encoding="utf-8") == text
    metrics_log.drop_after(tmp_path, 0)
    assert path.read_text(encoding="utf-8") == ""
