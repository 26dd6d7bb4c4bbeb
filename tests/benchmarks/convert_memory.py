"""Memory of converting a checkpoint: `python tests/benchmarks/convert_memory.py [GB] [--to …]`.

Writes a Hugging Face folder of GB gigabytes (6 unless told) in bfloat16 and several shards to a
temporary folder (in --directory, where given): T5 XXL's widths, with fewer layers. A process of its
own converts it to float32 in the layout of --to (huggingface unless told), so that all is read and
written; twice as many GB again are needed for that on the disk.

Prints one JSON line. `anonymous_gb` is the process's largest memory but for cached pages of files,
`resident_gb` with them, both less what it had before it opened anything. Tensors are taken one by
one: with huggingface and t5x, runs with different GB take the same memory; where Orbax writes, it
grows a little (1.42, 1.57 and 1.60 GB were seen for 1.4, 6 and 12 GB, of 22 that XXL has). The
11B models' largest tensors are no larger than this one's. Exits with 1 where the anonymous
memory is 2 GB beyond the largest tensor, in float32.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import shutil
import sys
import tempfile
import threading
import time

import measuring
import ml_dtypes
import numpy as np

from poison_t5x.checkpoint_io import architecture, conversion
from poison_t5x.checkpoint_io import hugging_face_writing as writing
from poison_t5x.checkpoint_io.source import Source, Tensor
from poison_t5x.model.config import T5Config

BAR_GB = 2.0
XXL = measuring.network("xxl")
T5_11B = T5Config(
    vocab_size=32128,
    emb_dim=1024,
    num_heads=128,
    head_dim=128,
    mlp_dim=65536,
    num_encoder_layers=24,
    num_decoder_layers=24,
    mlp_activations=("relu",),
    logits_via_embedding=True,
)
_SHARD_BYTES = 2 * 10**9
LAYOUTS = ("huggingface", "t5x", "t5x-orbax", "poison-t5x")


def synthetic(config: T5Config) -> Source:
    """A source of random bfloat16 numbers: a million, over and over."""
    shapes = architecture.shapes(config)
    numbers = np.random.default_rng(0).normal(size=1_000_003).astype(ml_dtypes.bfloat16)

    def tensor(shape) -> Tensor:
        return Tensor(shape, "bfloat16", lambda index: np.resize(numbers, shape)[index])

    params = {name: tensor(shape) for name, shape in shapes.items()}
    return Source("nowhere", "random numbers", params)


def shallow(num_bytes: float) -> T5Config:
    """XXL with as many layers as make up about `num_bytes` in bfloat16."""
    one = dataclasses.replace(XXL, num_encoder_layers=1, num_decoder_layers=1)
    two = dataclasses.replace(XXL, num_encoder_layers=2, num_decoder_layers=2)
    layers = 1 + round((num_bytes - 2 * _numbers(one)) / (2 * (_numbers(two) - _numbers(one))))
    layers = max(layers, 1)
    return dataclasses.replace(XXL, num_encoder_layers=layers, num_decoder_layers=layers)


def _numbers(config: T5Config) -> int:
    return sum(math.prod(shape) for shape in architecture.shapes(config).values())


def _largest(config: T5Config) -> tuple[str, int]:
    """The largest tensor, and its bytes in float32."""
    sizes = {name: 4 * math.prod(shape) for name, shape in architecture.shapes(config).items()}
    name = max(sizes, key=lambda n: sizes[n])
    return name, sizes[name]


def _status(field: str) -> int:
    """Bytes, of a line of this process's status.

    getrusage's maximum isn't taken: it begins with that of the process that started this one.
    """
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class _AnonymousPeak(threading.Thread):
    """The largest anonymous memory, looked up every 5 ms."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes, self._stop_asked = 0, threading.Event()

    def run(self):
        while not self._stop_asked.wait(0.005):
            self.bytes = max(self.bytes, _status("RssAnon"))

    def stop(self) -> int:
        self._stop_asked.set()
        self.join()
        return self.bytes


def measure(source: str, directory: str, layout: str) -> dict:
    """Converts, in this process."""
    anonymous, resident = _status("RssAnon"), _status("VmRSS")
    watch = _AnonymousPeak()
    watch.start()
    start = time.perf_counter()
    conversion.convert(source, directory, layout, dtype="float32", log=lambda line: None)
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "anonymous_gb": round((watch.stop() - anonymous) / 1e9, 3),
        "resident_gb": round((_status("VmHWM") - resident) / 1e9, 3),
        "before_gb": round(resident / 1e9, 3),
    }


def _check_space(directory: str | None, num_bytes: float) -> None:
    free = shutil.disk_usage(directory or tempfile.gettempdir()).free
    if free < 3.1 * num_bytes:
        sys.exit(f"{3.1 * num_bytes / 1e9:.0f} GB are needed and {free / 1e9:.0f} GB are free")


def main(gigabytes: float, layout: str, directory: str | None) -> int:
    _check_space(directory, gigabytes * 1e9)
    config = shallow(gigabytes * 1e9)
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        source = writing.write_folder(
            synthetic(config),
            config,
            f"{folder}/source",
            max_shard_bytes=_SHARD_BYTES,
            log=lambda line: None,
        )
        results = measuring.in_a_process(__file__, source, f"{folder}/written", layout)
        shards = len(list(pathlib.Path(source).glob("*.safetensors")))
    name, largest = _largest(config)
    beyond = results["anonymous_gb"] - largest / 1e9
    results |= {
        "benchmark": "convert_memory",
        "to": layout,
        "source_gb": round(2 * _numbers(config) / 1e9, 2),
        "shards": shards,
        "tensors": len(architecture.shapes(config)),
        "largest_tensor": name,
        "largest_tensor_gb": round(largest / 1e9, 3),
        "beyond_one_tensor_gb": round(beyond, 3),
        "bar_gb": BAR_GB,
        "11B": {
            model: {
                "parameters": _numbers(whole),
                "tensors": len(architecture.shapes(whole)),
                "largest_tensor_gb": round(_largest(whole)[1] / 1e9, 3),
            }
            for model, whole in {"t5_1_1_xxl": XXL, "t5_11b": T5_11B}.items()
        },
    }
    print(json.dumps(results))
    return int(beyond >= BAR_GB)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gigabytes", type=float, nargs="?", default=6.0)
    parser.add_argument("--to", choices=LAYOUTS, default="huggingface")
    parser.add_argument("--directory", help="where to write, rather than the temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        options = _options()
        sys.exit(main(options.gigabytes, options.to, options.directory))
