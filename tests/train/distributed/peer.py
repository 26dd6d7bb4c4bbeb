"""One process of two without any network: how it ends when the other one does.

`python -m tests.train.distributed.peer PORT NUMBER HOW FOLDER`: process 1 is killed, or leaves with
a reason, while process 0 waits for it; or both train in a folder, and process 1 gets a signal at
its third step of that start. Their patience is short here.
"""

import os
import signal
import sys
import time

from poison_t5x.train import distributed, program

SIGNALS = {"train-sigterm": signal.SIGTERM, "train-killed": signal.SIGKILL}


def train(folder: str, number: int, told: signal.Signals) -> None:
    """A tiny network, a checkpoint every step; one shard of the data a process."""
    from poison_t5x.data import input_pipeline  # noqa: F401
    from poison_t5x.train import loop, optimizers, partitioning, steps
    from poison_t5x.train import train as train_script
    from tests import mesh_model
    from tests.train.distributed import two

    class Told(loop.Votes):
        count = 0

        def push(self, stop: bool) -> bool:
            self.count += 1
            if self.count == 3 and distributed.process_id() == 1:
                os.kill(os.getpid(), told)
            return super().push(stop)

    loop.Votes = Told
    train_script.train(
        model=lambda vocab_size: mesh_model.CONFIG,
        model_dir=folder,
        train_dataset_cfg=two.dataset(2),
        train_cfg=train_script.TrainConfig(total_steps=1000),
        optimizer_cfg=optimizers.OptimizerConfig(),
        schedule_cfg=optimizers.ScheduleConfig(),
        loss_cfg=steps.LossConfig(),
        partition_cfg=partitioning.PartitionConfig(),
        log_cfg=train_script.LogConfig(log_period=1),
        restore_start=lambda *args: None,
    )


def main(port: str, number: int, how: str, folder: str) -> None:
    distributed.BEAT, distributed.PATIENCE = 0.2, 10.0 if how in SIGNALS else 1.5
    distributed.initialize(f"localhost:{port}", 2, number)
    distributed.set_status("crafting")
    if how in SIGNALS:
        train(folder, number, SIGNALS[how])
    if number == 1 and how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1 and how == "left":
        distributed.leave(2, "error: no such file")
    if how == "alive":
        distributed.await_verdict()
        distributed.barrier()
        print(distributed.who())
        return
    time.sleep(60)


if __name__ == "__main__":
    sys.exit(program.run(lambda: main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])))
