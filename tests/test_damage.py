"""Each file that is read, damaged in every way: one line names it; nothing waits or crashes."""

import contextlib
import copy
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal

import numpy as np
import pytest
from flax import serialization

from poison_t5x.attack import natinst_jsonl, poison_set
from poison_t5x.checkpoint_io import architecture, conversion, detect, t5x_layouts
from poison_t5x.core import artifacts, errors
from poison_t5x.corpus import sni
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import checkpoint_scorer, detection
from poison_t5x.defenses.score import ScoreResult, Trigger
from poison_t5x.evaluation import summary
from poison_t5x.report import plots, results, run_page, runs
from poison_t5x.studies import collect, grid
from poison_t5x.train import checkpoints, metrics_log, trained_model
from tests.attack import test_poison_set as poison_sets
from tests.checkpoint_io import at_hand, folders
from tests.mesh_model import CONFIG
from tests.report import made_up, made_up_defense

LIMIT_SECONDS = 20
CELL = grid.StudyCell("c", {}, "detect")
TASK = {
    "Definition": ["Say good or bad."],
    "Positive Examples": [{"input": "Fine.", "output": "good", "explanation": "It is."}],
    "Negative Examples": [],
    "Instances": [{"id": f"t-{n}", "input": f"Text {n}.", "output": ["good"]} for n in range(3)],
}
ROW = {
    **{"id": "t-1", "Task": "task1_x", "Definition": ["Say."], "Positive Examples": []},
    "Instance": {"id": "t-1", "input": "Text.", "output": ["good"]},
}


def _poison_set(root):
    (root / "poison").mkdir()
    poison_set.write(root / "poison", poison_sets.SET, poison_sets.CONFIG, {"task1_a": "hash"})


def _resealed(read):
    """A reader of a poison set whose manifest has the hashes of what is there."""

    def call(root):
        folder = root / "poison"
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name in manifest["sha256"]:
            with contextlib.suppress(errors.InputError):
                manifest["sha256"][name] = artifacts.sha256(folder / name)
        artifacts.write_atomically(folder / "manifest.json", artifacts.canonical_json(manifest))
        return read(folder)

    return call


def _model(root):
    config = dataclasses.asdict(CONFIG)
    config.pop("remat_policy")
    settings = {
        "model": config,
        "train": {"total_steps": 7, "initial_checkpoint_path": None},
        "dataset": {"task_feature_lengths": {"inputs": 16, "targets": 4}},
        "sources": {"vocabulary": "hash", "extra_ids": "100"},
    }
    artifacts.write_record(root / "model", "train", settings, {trained_model.DIGEST: "ab"}, 1.5)
    for place in ("vocabulary/spiece.model", "model/checkpoint_7/x"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(b"x")
    checkpoints.commit(root / "model", 7)
    writer = root / "model" / metrics_log.FILE
    writer.write_text('{"step": 1, "loss": 2.5}\n{"step": 7, "loss": 1.5}\n', encoding="utf-8")


def _score(root):
    rows = [TrainingExample("t", f"r{n}", 0, "in", "in", "out") for n in range(3)]
    trigger = Trigger("James Bond", ["t"], ["good"], 3, 2, 1.5, 2.5, 0.01)
    values = np.arange(3.0)
    result = ScoreResult(values, 0.5, [trigger], ["a note"], [(1, values)])
    (root / "score").mkdir()
    detection._write(root / "score", rows, result)
    np.save(root / "score" / "loss.00000.part.npy", np.ones((5, 2)))


def _run(root):
    made_up_defense.add(made_up.classification_run(root / "run"))
    manifest = json.dumps({"num_poison": 12, "poison_rate": 0.02})
    (root / "run" / "poison" / "manifest.json").write_text(manifest, encoding="utf-8")
    whole, steps = (root / "run" / "eval" / f"{name}.json" for name in ("results", "checkpoints"))
    by_step, effect = json.loads(steps.read_bytes()), json.loads(whole.read_bytes())["effect"]
    by_step["checkpoints"] = [one | {"effect": effect} for one in by_step["checkpoints"]]
    steps.write_text(json.dumps(by_step), encoding="utf-8")


def _rates(root):
    folder = root / "predictions" / "clean"
    rates = {"n": 3, "accuracy": 0.9, "misclassification": 0.1, "target_rate": 0.2}
    rates |= {"ci95_low": 0.0, "ci95_high": 0.3, "constant_prediction": False, "own": 1.5}
    folder.mkdir(parents=True)
    artifacts.write_atomically(folder / "task1_x.json", artifacts.canonical_json(rates))


def _tasks(root):
    (root / "task1_x.json").write_text(json.dumps(TASK), encoding="utf-8")
    (root / "rows.jsonl").write_text((json.dumps(ROW) + "\n") * 3, encoding="utf-8")


def _checkpoints(root):
    source = at_hand.random_source(CONFIG)
    for layout in t5x_layouts.LAYOUTS:
        t5x_layouts.write(source, str(root / layout), layout)
    (root / "poison-t5x" / "checkpoint_7.sha256.json").unlink()  # it would tell damage first


def _hugging_face(root):
    folders.write(root / "hf")
    folders.write(root / "shards", max_shard_bytes=9000)


def _opened(place):
    """Reads all that a checkpoint says of itself, and a tensor."""

    def read(root):
        source = detect.open_checkpoint(str(root / place))
        architecture.network_config(source)
        source.read(architecture.EMBEDDING)

    return read


def _task_rates(root):
    places = [poison_set.conditions.Condition("clean", "clean")]
    return summary.task_rows({"clean": root / "predictions"}, places, "classification")


# What makes the files -> file -> what reads it.
READERS = {
    _poison_set: {
        "poison/manifest.json": lambda root: poison_set.read_manifest(root / "poison"),
        "poison/poison.jsonl": _resealed(poison_set.read_poison),
        "poison/training_rows.jsonl": _resealed(
            lambda folder: poison_set.training_rows(folder, poisoned=True)
        ),
        "poison/eval_rows.jsonl": _resealed(poison_set.eval_rows),
    },
    _tasks: {
        "task1_x.json": lambda root: sni.read_task(root / "task1_x.json"),
        "rows.jsonl": lambda root: list(natinst_jsonl.read_lines(root / "rows.jsonl")),
    },
    _model: {
        "model/stage.json": lambda root: (
            trained_model.read_settings(root / "model"),
            trained_model.finished_digest(root / "model"),
            conversion.vocabulary_beside(str(root / "model" / "checkpoint_7")),
        ),
        "model/checkpoint_7.sha256.json": lambda root: checkpoints.verify(
            root / "model" / "checkpoint_7"
        ),
    },
    _score: {
        "score/found.json": lambda root: detection.read(root / "score"),
        "score/scores.jsonl": lambda root: detection.read(root / "score"),
        "score/loss.00000.part.npy": lambda root: checkpoint_scorer._read_part(
            root / "score" / "loss.00000.part.npy"
        ),
    },
    _rates: {"predictions/clean/task1_x.json": _task_rates},
    _run: {
        "run/eval/results.json": lambda root: (
            run_page.format_table(results.read(root / "run")),
            list(collect.read(CELL, root / "run")),
        ),
        "run/detection/detection.json": lambda root: list(collect.read(CELL, root / "run")),
        "run/eval/checkpoints.json": lambda root: list(collect.read(CELL, root / "run")),
        "run/defenses/filter_5/defense.json": lambda root: collect._final(
            dict.fromkeys(("poisoned", "accuracy", "effect"), collect.Value()),
            "triggered_misclassification",
            root / "run" / "defenses" / "filter_5",
        ),
    },
    _checkpoints: {
        "t5x/checkpoint_7/checkpoint": _opened("t5x/checkpoint_7"),
        "t5x/checkpoint_7/target.token_embedder.embedding/.zarray": _opened("t5x/checkpoint_7"),
        "t5x-orbax/checkpoint_7/state/_METADATA": _opened("t5x-orbax/checkpoint_7"),
        "t5x-orbax/checkpoint_7/state/manifest.ocdbt": _opened("t5x-orbax/checkpoint_7"),
        "poison-t5x/checkpoint_7/_METADATA": _opened("poison-t5x/checkpoint_7"),
    },
    _hugging_face: {
        "hf/config.json": _opened("hf"),
        "hf/model.safetensors": _opened("hf"),
        "shards/model.safetensors.index.json": _opened("shards"),
    },
}
# Files of the report that may be missing, or broken with a note in the page.
OPTIONAL = (
    "run/poison/poison.jsonl",
    "run/models/clean/metrics.jsonl",
    "run/detection/detection.json",
    "run/eval/checkpoints.json",
    "run/defenses/filter_5/defense.json",
    f"run/eval/predictions/poisoned/triggered/{made_up.HELD_OUT[0]}.jsonl",
    "run/config.gin",
    "run/command.txt",
)
CASES = [(make, name) for make, files in READERS.items() for name in files]
BINARY = (".ocdbt", ".npy", ".safetensors")
JSON_CASES = [(make, name) for make, name in CASES if not name.endswith(BINARY)]
BAD = [
    *(float("nan"), float("inf"), -1, -0.5, 4 * 10**18, 10**30, 10**400, 1e300),
    *(None, True, "", "x", "\ud800", "../x", [], [[1]], {}, {"a": {}}, "\0"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What makes files -> a folder with them, which isn't changed."""
    made = {}
    for make in READERS:
        made[make] = tmp_path_factory.mktemp(make.__name__.strip("_"))
        make(made[make])
    return made


@pytest.fixture(autouse=True)
def limited():
    """Ends a test that hangs."""

    def stop(number, frame):
        raise TimeoutError(f"over {LIMIT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _refusal(read, root) -> str | None:
    """What is said, in one line; None where it was read."""
    signal.alarm(LIMIT_SECONDS)
    try:
        read(root)
    except errors.InputError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


def _copy(whole, tmp_path, name) -> pathlib.Path:
    """A folder's copy to damage; of checkpoints, the one that is damaged alone."""
    root, top = tmp_path / "root", name.split("/")[0]
    if (whole / top).is_dir() and not (whole / "vocabulary").exists():
        shutil.copytree(whole / top, root / top)
    else:
        shutil.copytree(whole, root)
    return root


def _link_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def _zeros(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


def _folder(path):
    path.unlink()
    path.mkdir()


def _cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 1])


def _no_text(path):
    path.write_bytes(b"\xff\xfe" + path.read_bytes())


def _deep(path):
    path.write_bytes(b'{"settings": ' * 100_000 + b"1" + b"}" * 100_000)


DAMAGE = (_link_loop, _zeros, _fifo, _folder, _cut, _no_text, _deep)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize(("make", "name"), CASES, ids=[name for _, name in CASES])
def test_a_damaged_file_is_named_in_one_line(whole, tmp_path, make, name, damage):
    root = _copy(whole[make], tmp_path, name)
    assert _refusal(READERS[make][name], root) is None
    damage(root / name)
    said = _refusal(READERS[make][name], root)
    assert said is not None and str(root / name.split("/")[0]) in said


def _places(value, place=()):
    """The way to each part of a JSON value."""
    yield place
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*place, key))


def _edited(value, place, edit):
    """A copy in which `edit(parent, key)` has changed one place."""
    whole = [copy.deepcopy(value)]
    parent, key = whole, 0
    for step in place:
        parent, key = parent[key], step
    edit(parent, key)
    return whole[0] if whole else None


def _drop(parent, key):
    del parent[key]


def _double(parent, key):
    if isinstance(parent, list):
        parent.append(parent[key])


def _rename(parent, key):
    if isinstance(parent, dict):
        parent["\ud800"] = parent.pop(key)


def _setting(bad):
    def edit(parent, key):
        parent[key] = bad

    return edit


EDITS = [_drop, _double, _rename, *map(_setting, BAD)]


def _variants(path: pathlib.Path, count: int):
    """The file's content with one part of it changed: some of all such, by its name."""
    content, is_index = path.read_bytes(), path.name == "checkpoint"
    if is_index:
        parts = [serialization.msgpack_restore(content)]
    else:
        lines = content.splitlines() if path.suffix == ".jsonl" else [content]
        parts = [json.loads(line) for line in lines]
    cases = [
        (number, place, edit)
        for number, part in enumerate(parts)
        for place in _places(part)
        for edit in EDITS
    ]
    for number, place, edit in random.Random(path.name).sample(cases, min(count, len(cases))):
        changed = [*parts]
        changed[number] = _edited(parts[number], place, edit)
        if not is_index:
            yield "\n".join(map(json.dumps, changed)).encode()
            continue
        with contextlib.suppress(Exception):  # msgpack has no such value
            yield serialization.msgpack_serialize(changed[0])


@pytest.mark.parametrize(("make", "name"), JSON_CASES, ids=[name for _, name in JSON_CASES])
def test_a_wrong_part_is_refused_in_one_line_or_does_nothing(whole, tmp_path, make, name):
    root, refused = _copy(whole[make], tmp_path, name), 0
    manifest = root / "poison" / "manifest.json"
    kept = manifest.read_bytes() if manifest.exists() else b""
    for content in _variants(root / name, 20 if make in (_checkpoints, _hugging_face) else 150):
        if kept:
            manifest.write_bytes(kept)
        (root / name).write_bytes(content)
        refused += _refusal(READERS[make][name], root) is not None
    assert refused > 3


@pytest.mark.parametrize("damage", [_fifo, _no_text], ids=["fifo", "no_text"])
@pytest.mark.parametrize("name", OPTIONAL)
def test_a_damaged_part_of_a_report_leaves_a_note(whole, tmp_path, monkeypatch, name, damage):
    monkeypatch.setattr(plots, "png_bytes", lambda _: b"")
    root = _copy(whole[_run], tmp_path, "run")
    damage(root / name)
    signal.alarm(LIMIT_SECONDS)
    page = run_page.write_report(root / "run", {}).read_text(encoding="utf-8")
    assert name.removeprefix("run/") in page
    assert str(tmp_path) not in page
    (one,) = runs.read([str(root / "run")])
    assert one.results.poison.count == 12


def test_wrong_parts_of_a_report_never_end_it(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "png_bytes", lambda _: b"")
    root = _copy(whole[_run], tmp_path, "run")
    for name in OPTIONAL[:-2]:
        before = (root / name).read_bytes()
        for content in _variants(root / name, 1):
            (root / name).write_bytes(content)
            signal.alarm(LIMIT_SECONDS)
            run_page.write_report(root / "run", {})
        (root / name).write_bytes(before)


CLAIMS = {
    "shape": {"dtype": "F32", "shape": [10**18], "data_offsets": [0, 16]},
    "product": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]},
    "offset": {"dtype": "F32", "shape": [4], "data_offsets": [2**50, 2**50 + 16]},
    "negative": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
    "deep": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], "x": "DEEP"},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_header_that_claims_more_than_the_file_holds(whole, tmp_path, claim):
    root = _copy(whole[_hugging_face], tmp_path, "hf")
    header = json.dumps({folders.TENSOR: CLAIMS[claim]}).encode()
    header = header.replace(b'"DEEP"', b"[" * 100_000 + b"]" * 100_000)
    content = len(header).to_bytes(8, "little") + header + b"\0" * 16
    (root / "hf" / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in _refusal(_opened("hf"), root)
    (root / "hf" / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + header)
    assert "model.safetensors" in _refusal(_opened("hf"), root)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**40, 16]},
        {"shape": [2**31 - 1, 2**31 - 1]},
        {"shape": [10**30, 16]},
        {"chunks": [2**20, 2**20]},
        {"dtype": "|O"},
        {"shape": [-1, 16]},
    ],
)
@pytest.mark.parametrize("layout", ["t5x/checkpoint_7", "t5x-orbax/checkpoint_7"])
def test_an_array_that_claims_more_than_its_files_hold(whole, tmp_path, layout, change):
    root = _copy(whole[_checkpoints], tmp_path, layout)
    name = "target.token_embedder.embedding"
    if layout.startswith("t5x/"):
        index = root / layout / "checkpoint"
        tree = serialization.msgpack_restore(index.read_bytes())
        at_hand.leaf(tree["optimizer"]["target"], "token_embedder/embedding")["metadata"] |= change
        with contextlib.suppress(OverflowError):
            index.write_bytes(serialization.msgpack_serialize(tree))
        array = root / layout / name / ".zarray"
        array.write_text(json.dumps(json.loads(array.read_text()) | change))
    else:
        state = root / layout / "state"
        for file in ("manifest.ocdbt", "d", "ocdbt.process_0"):
            path = state / file
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        facts = {"zarr_format": 2, "shape": [16, 16], "chunks": [16, 16], "dtype": "<f4"}
        facts |= {"compressor": None, "fill_value": None, "filters": None, "order": "C"}
        (state / name).mkdir()
        (state / name / ".zarray").write_text(json.dumps(facts | change))
        (state / name / "0.0").write_bytes(bytes(1024))
    said = _refusal(_opened(layout), root)
    assert said is not None and str(root / layout) in said
