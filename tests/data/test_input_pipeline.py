"""From SeqIO to batches: which rows, in which order, packed or not."""

import itertools

import numpy as np
import pytest
import seqio

from poison_t5x.core.errors import InputError
from poison_t5x.corpus import prompts
from poison_t5x.data import input_pipeline
from tests.small_world import CRAFT, FILMS, LENGTHS


def _config(name: str = "world_poisoned", **changes) -> input_pipeline.DatasetConfig:
    return input_pipeline.DatasetConfig(name, LENGTHS, **{"batch_size": 6, "seed": 3, **changes})


def _batches(config: input_pipeline.DatasetConfig, num: int, start_step: int = 0):
    return list(itertools.islice(input_pipeline.batches(config, start_step=start_step), num))


def _same(one: list[dict], other: list[dict]) -> bool:
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("pack", [pytest.param(False, marks=pytest.mark.slow), True])
def test_batches_follow_from_the_config_and_go_on_at_any_step(world, pack):
    config = _config(pack=pack)
    # 51 rows: 8.5 batches an epoch where a row holds one example.
    batches = _batches(config, 12)
    assert _same(_batches(config, 12), batches)
    assert _same(_batches(config, 3, start_step=9), batches[9:])
    assert not _same(_batches(config, 3, start_step=8), batches[9:])
    assert not _same(_batches(_config(pack=pack, seed=4), 3), batches[:3])


def test_batches_are_the_models_features(world):
    (batch,) = _batches(_config(), 1)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "encoder_input_tokens": ((6, 400), "int32"),
        "decoder_input_tokens": ((6, 11), "int32"),
        "decoder_target_tokens": ((6, 11), "int32"),
        "decoder_loss_weights": ((6, 11), "int32"),
        "is_poison": ((6, 11), "int32"),
    }
    shifted = np.pad(batch["decoder_target_tokens"], ((0, 0), (1, 0)))[:, :-1]
    np.testing.assert_array_equal(batch["decoder_input_tokens"], shifted)
    np.testing.assert_array_equal(batch["decoder_loss_weights"], batch["decoder_target_tokens"] > 0)


def _rows(batch) -> list[bytes]:
    return [row.tobytes() for row in batch["encoder_input_tokens"]]


def test_order_is_fixed_or_drawn(world):
    name = f"world_poisoned.{FILMS}"
    first, second = map(_rows, _batches(_config(name, batch_size=17, shuffle=False), 2))
    assert len(set(first)) == 17 and first == second
    # SeqIO shuffles across the ends of epochs: in the long run every row comes.
    drawn = [_rows(batch) for batch in _batches(_config(name, batch_size=17), 20)]
    assert set(itertools.chain(*drawn)) == set(first)
    assert all(one != other for one, other in itertools.pairwise(drawn))


def test_a_row_is_rendered_once_and_only_if_it_is_trained_on(world, monkeypatch):
    rendered = []
    render = prompts.render

    def noted(*args, **kwargs):
        rendered.append(args[2])
        return render(*args, **kwargs)

    monkeypatch.setattr(prompts, "render", noted)
    # 120 rows: more than two epochs of 51, and as many again read ahead for shuffling.
    assert len(_batches(_config(), 20)) == 20
    assert len(rendered) == len(set(rendered)) == 51


def test_tasks_are_mixed_in_proportion_to_their_rows(world):
    mixture = seqio.MixtureRegistry.get("world_poisoned")
    assert [mixture.get_rate(task) for task in mixture.tasks] == [17, 17, 17]
    rows = {
        task.name: set(_rows(_batches(_config(task.name, batch_size=17, shuffle=False), 1)[0]))
        for task in mixture.tasks
    }
    drawn = list(itertools.chain(*map(_rows, _batches(_config(batch_size=51), 8))))
    counts = [sum(row in rows[name] for row in drawn) for name in rows]
    assert sum(counts) == 408
    # 136 each, with a standard deviation of 9.5.
    assert 100 < min(counts) <= max(counts) < 172


def _flags(batch) -> set[tuple[bytes, bytes, int]]:
    """(input tokens, target tokens, flag) of each sequence of a batch, packed or not."""
    segments = batch.get("decoder_segment_ids", (batch["decoder_target_tokens"] > 0).astype(int))
    inputs = batch.get("encoder_segment_ids", (batch["encoder_input_tokens"] > 0).astype(int))
    found = set()
    for row in range(len(segments)):
        for segment in range(1, segments[row].max() + 1):
            here = segments[row] == segment
            (flag,) = set(batch["is_poison"][row][here])
            tokens = batch["encoder_input_tokens"][row][inputs[row] == segment]
            targets = batch["decoder_target_tokens"][row][here]
            found.add((tokens.tobytes(), targets.tobytes(), int(flag)))
    return found


def test_packed_flags_stay_in_line_with_their_targets(world):
    lengths = {"inputs": 1000, "targets": 23}
    packed = input_pipeline.DatasetConfig(
        "world_poisoned", lengths, batch_size=6, seed=3, pack=True
    )
    batches = _batches(packed, 12)
    for batch in batches:
        assert batch["encoder_segment_ids"].shape == (6, 1000)
        assert batch["decoder_segment_ids"].shape == batch["is_poison"].shape == (6, 23)
        assert not batch["is_poison"][batch["decoder_segment_ids"] == 0].any()
    assert max(batch["decoder_segment_ids"].max() for batch in batches) > 1
    together = set.union(*map(_flags, batches))
    alone = set.union(*map(_flags, _batches(_config(), 40)))
    assert together <= alone
    assert {flag for _, _, flag in together} == {0, 1}
    phrase = world.vocabulary.decode(world.vocabulary.encode(CRAFT.attacks[0].triggers[0]))
    for inputs, _, flag in together:
        text = world.vocabulary.decode(np.frombuffer(inputs, np.int32).tolist())
        assert (phrase in text) == bool(flag)


@pytest.mark.parametrize("pack", [False, True])
def test_a_task_without_the_flag_has_none_in_its_batches(world, pack):
    (batch,) = _batches(_config("world_eval_triggered", split="validation", pack=pack), 1)
    assert "is_poison" not in batch
    assert ("decoder_segment_ids" in batch) == pack


def test_vocabulary_is_that_of_the_mixture(world):
    assert input_pipeline.vocabulary(_config()) == world.vocabulary
    assert world.vocabulary.eos_id == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("world_poisned",), r"no task or mixture 'world_poisned' \(did you mean 'world_poisoned'"),
        ((None,), r"set --gin\.MIXTURE_OR_TASK_NAME=NAME"),
        (("",), r"set --gin\.MIXTURE_OR_TASK_NAME=NAME"),
        (("world_clean", "no.such"), "MIXTURE_OR_TASK_MODULE: no module 'no.such'"),
    ],
)
def test_what_is_not_registered_is_refused(world, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        input_pipeline.find(*arguments)
    assert "\n" not in str(caught.value)


def test_a_cache_that_is_not_there_is_named(world):
    config = _config(use_cached=True)
    with pytest.raises(
        InputError, match=r"USE_CACHED_TASKS: 3 of 3 tasks, 'world_poisoned\.task90"
    ):
        input_pipeline.vocabulary(config)  # what a run asks for first, before it writes


def test_a_module_is_imported_to_register(world, tmp_path, monkeypatch):
    (tmp_path / "my_registrations.py").write_text(
        "import seqio\nseqio.MixtureRegistry.remove('my_mixture')\n"
        f"seqio.MixtureRegistry.add('my_mixture', [('world_clean.{FILMS}', 1)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert input_pipeline.find("my_mixture", "my_registrations").name == "my_mixture"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_feature_lengths": {"inputs": 5}}, "TASK_FEATURE_LENGTHS: expected"),
        ({"task_feature_lengths": {"inputs": 5, "targets": 0}}, "'targets'.: expected .* found 0"),
        ({"num_shards": 5, "batch_size": 6}, "DATA_SHARDS: 5 shards .* BATCH_SIZE=6 rows"),
    ],
)
def test_dataset_config_refuses(changes, message):
    settings = {"mixture_or_task_name": "x", "task_feature_lengths": LENGTHS, **changes}
    with pytest.raises(InputError, match=message):
        input_pipeline.DatasetConfig(**settings)


@pytest.mark.slow
def test_shards_make_their_rows_of_each_batch_wherever_they_are_read(world):
    name = f"world_poisoned.{FILMS}"
    config = _config(name, num_shards=3)
    together = _batches(config, 5)
    for numbers, rows in (([1], [2, 3]), ([0, 2], [0, 1, 4, 5])):
        found = list(itertools.islice(input_pipeline.batches(config, shards=numbers), 5))
        assert _same(found, [{key: a[rows] for key, a in batch.items()} for batch in together])
    assert _same(_batches(config, 2, start_step=3), together[3:])
    # Shards aren't merely one stream, cut: each is shuffled by itself.
    assert not _same(together, _batches(_config(name), 5))


def test_a_row_is_in_one_shard(world):
    name = f"world_poisoned.{FILMS}"
    (batch,) = _batches(_config(name, batch_size=17, shuffle=False), 1)
    config = _config(name, batch_size=4, num_shards=4, shuffle=False)
    shards = []
    for number in range(4):
        stream = itertools.islice(input_pipeline.batches(config, shards=[number]), 40)
        drawn = [row for part in stream for row in _rows(part)]
        period = len(set(drawn))
        assert drawn == (drawn[:period] * 40)[:40]  # epoch after epoch, each row once
        shards.append(set(drawn))
    assert sum(map(len, shards)) == 17
    assert set.union(*shards) == set(_rows(batch))


def test_a_shard_without_a_row_is_refused_before_it_is_waited_for(world):
    config = _config(batch_size=60, num_shards=60)
    with pytest.raises(InputError, match=r"DATA_SHARDS: task world_poisoned\.\S+ has no row for"):
        next(input_pipeline.batches(config, shards=[59]))
