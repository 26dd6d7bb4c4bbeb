"""A start: the state, the first batch and the compiled step are made at the same time."""

import dataclasses
import threading

import pytest

from poison_t5x.data import input_pipeline
from poison_t5x.train import loop as train_loop
from poison_t5x.train import optimizers, partitioning, steps, train
from tests import mesh_model
from tests.train.distributed import two

TIMEOUT = 60


def test_what_is_worked_out_again_may_change_under_way():
    def settings(**changes):
        network = dataclasses.replace(mesh_model.CONFIG, **changes)
        rest = optimizers.OptimizerConfig(), optimizers.ScheduleConfig(), steps.LossConfig()
        config = train.TrainConfig(total_steps=1)
        return train._settings(network, *rest, config, two.dataset(1), None)

    assert settings() == settings(remat_policy="full")
    assert settings() != settings(scan_layers=True) != settings(param_dtype="bfloat16")


@pytest.fixture(name="loop")
def _loop():
    return train_loop.Loop(
        mesh_model.CONFIG,
        optimizers.OptimizerConfig(name="adamw"),
        optimizers.ScheduleConfig(),
        steps.LossConfig(),
        partitioning.PartitionConfig(),
        train.TrainConfig(total_steps=1),
        train.LogConfig(),
    )


def test_none_waits_for_another(loop, tmp_path, monkeypatch):
    # Each goes on only when all three have begun.
    together = threading.Barrier(3)

    def waiting(made: str):
        def make(*args):
            together.wait(TIMEOUT)
            return made

        return make

    def batches(config, **kwargs):
        together.wait(TIMEOUT)
        yield from real_batches(config, **kwargs)

    real_batches = input_pipeline.batches
    monkeypatch.setattr(input_pipeline, "batches", batches)
    monkeypatch.setattr(loop, "_compile", waiting("compiled"))
    monkeypatch.setattr(loop, "_state", waiting("state"))
    with loop.starting(tmp_path, two.dataset(1), None) as started:
        assert started[:3] == ("state", 0, "compiled")
        batch = next(started[3])
    assert batch["encoder_input_tokens"].shape == (8, 1)
    assert batch["encoder_input_tokens"].sharding == loop.partitioner.batch
