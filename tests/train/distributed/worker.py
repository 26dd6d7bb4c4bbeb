"""One process of two, with four devices: what each part does there, written to a folder.

`python -m tests.train.distributed.worker FOLDER`, where a checkpoint of step 3 is in FOLDER/model.
How the processes find each other is in the environment, as Slurm has it.
"""

import itertools
import json
import pathlib
import sys

import jax
import numpy as np
import optax

from poison_t5x.core import errors
from poison_t5x.model.network import Transformer
from poison_t5x.train import checkpoints, distributed, loop, train_state, trained_model
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.train.distributed import two


def _batches(partitioner: Partitioner, num_shards: int):
    """The first batches, as they lie on all devices, and the shards that this process read."""
    from poison_t5x.data import input_pipeline

    config = two.dataset(num_shards)
    shards = partitioner.shards(config.batch_size, num_shards)
    batches = itertools.islice(input_pipeline.batches(config, shards=shards), 5)
    placed = [partitioner.put_batch(batch, config.batch_size) for batch in batches]
    rows = [distributed.to_host(batch["encoder_input_tokens"]) for batch in placed]
    return np.stack(rows), shards


def _bytes_read() -> int:
    lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def main(folder: pathlib.Path) -> None:
    distributed.initialize(detect=True)
    facts: dict = {"who": distributed.who()}

    mesh = Partitioner(PartitionConfig(2, 1, 2))
    abstract = train_state.abstract(Transformer(two.NETWORK), optax.adamw(0.1), mesh)
    saved = checkpoints.step_path(folder / "model", 3)
    checkpoints.restore(saved, abstract)  # what is imported for it is read now
    before = _bytes_read()
    state = checkpoints.restore(saved, abstract)
    facts["bytes_read"] = _bytes_read() - before
    facts["digest"] = trained_model.digest(state.params)
    trained_model._AT_ONCE = 4096
    facts["digest_in_parts"] = trained_model.digest(state.params)
    saver = checkpoints.Checkpointer(folder / "again")
    saver.save(state, 5)
    saver.finish()
    facts["last"], facts["committed"] = saver.last, checkpoints.committed_steps(folder / "again")
    saver.close()

    votes = loop.Votes(mesh)
    facts["votes"] = [votes.push(distributed.process_id() == 1 and step == 2) for step in range(5)]
    facts["made"] = distributed.broadcast_from_main(lambda: ["by", distributed.process_id()])
    facts["shards"], rows = {}, {}
    devices = jax.devices()
    # Processes' rows needn't follow each other, as along a TPU's torus.
    meshes = {
        "4x2": mesh,
        "crossed": Partitioner(PartitionConfig(2), [devices[i] for i in (0, 1, 4, 5, 2, 3, 6, 7)]),
        "1x8": Partitioner(PartitionConfig(8)),
    }
    for name, partitioner in meshes.items():
        shards = 1 if name == "1x8" else 4
        rows[name], facts["shards"][name] = _batches(partitioner, shards)
    try:
        mesh.shards(8, 1)
    except errors.InputError as error:
        facts["error"] = str(error)
    (folder / f"{distributed.process_id()}.json").write_text(json.dumps(facts))
    np.savez(folder / f"{distributed.process_id()}.npz", **rows)
    distributed.barrier()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
