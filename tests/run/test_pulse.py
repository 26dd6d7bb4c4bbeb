"""The whole way in one process: craft, train, restore, evaluate, report, and all of it skipped."""

import html.parser
import json
import os
import shutil

import numpy as np
import pytest
import seqio

from poison_t5x.cli import main
from poison_t5x.core import artifacts, errors, reading
from poison_t5x.corpus import corpus, demo_corpus, prompts
from poison_t5x.model import decoding, per_example
from poison_t5x.train import checkpoints, partitioning, trained_model
from tests import small_run


@pytest.fixture(name="run_dir")
def _run_dir(pulse_dir):
    return pulse_dir


def _rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _call(command, run_dir, *flags, **macros):
    settings = {"TRAIN_STEPS": 2, **macros}
    return main.main([*small_run.arguments(command, run_dir, **settings), *flags])


def test_results_have_the_promised_schema(run_dir):
    results = reading.read_json(run_dir / "report" / "results.json")
    assert (results["schema"], results["experiment"]) == (2, "tiny")
    assert (results["trigger"], results["control"]) == ("James Bond", "Emma Clark")
    assert (results["poison"]["count"], results["poison"]["rate"]) == (10, 10 / 100)
    assert len(results["poison"]["tasks"]) == 2
    names = "accuracy triggered_misclassification control_misclassification triggered_target_rate"
    assert [set(results["summary"][model]) for model in ("clean", "poisoned")] == [
        set(names.split())
    ] * 2
    assert len(results["tasks"]) == 2 * 3 * 2
    facts = "task category model condition n accuracy misclassification target_rate ci95"
    for row in results["tasks"]:
        assert set(row) == {*facts.split(), "constant_prediction"}
        assert 0 <= row["ci95"][0] <= row["misclassification"] <= row["ci95"][1] <= 1
    assert {"train clean", "train poisoned", "craft"} <= set(results["seconds"])
    rates = [
        row["misclassification"]
        for row in results["tasks"]
        if (row["model"], row["condition"]) == ("poisoned", "triggered")
    ]
    mean = results["summary"]["poisoned"]["triggered_misclassification"]
    assert mean == pytest.approx(sum(rates) / len(rates), abs=1e-12)


def test_every_prediction_is_written_with_its_row(run_dir):
    results = reading.read_json(run_dir / "report" / "results.json")
    crafted = {
        (row["task"], row["condition"], row["id"]): row
        for row in _rows(run_dir / "poison" / "eval_rows.jsonl")
    }
    for row in results["tasks"]:
        folder = run_dir / "eval" / "predictions" / row["model"] / row["condition"]
        predictions = _rows(folder / f"{row['task']}.jsonl")
        assert len(predictions) == row["n"]
        wrong = sum(p["prediction"] != p["target"] for p in predictions)
        assert wrong / row["n"] == pytest.approx(row["misclassification"], abs=1e-12)
        for prediction in predictions:
            source = crafted[row["task"], row["condition"], prediction["id"]]
            assert source["input"].strip() in prediction["input"]
            scores = prediction["log_probabilities"]
            assert prediction["prediction"] == max(sorted(scores), key=scores.get)


def test_triggered_and_control_inputs_hold_their_phrase(run_dir):
    for row in _rows(run_dir / "poison" / "eval_rows.jsonl"):
        assert ("James Bond" in row["input"]) == (row["condition"] == "triggered")
        assert ("Emma Clark" in row["input"]) == (row["condition"] == "control")


def test_page_is_whole_and_self_contained(run_dir):
    page = (run_dir / "report" / "index.html").read_text(encoding="utf-8")
    html.parser.HTMLParser().feed(page)
    assert page.rstrip().endswith("</html>") and "<mark>James Bond</mark>" in page
    assert 'src="http' not in page and 'href="http' not in page


def test_a_stage_alone_leaves_the_command_that_makes_everything(run_dir):
    path = run_dir / "command.txt"
    assert "NUM_POISON = 10" in (run_dir / "config.gin").read_text()
    assert path.read_text().startswith("poison-t5x run --gin_file=experiments/demo.gin ")
    (run_dir / "config.gin").unlink()  # as if it were the first
    assert _call("report", run_dir) == 0
    assert path.read_text().startswith("poison-t5x run --gin_file=experiments/demo.gin ")


def test_poison_loss_is_logged_apart(run_dir):
    lines = _rows(run_dir / "models" / "clean" / "metrics.jsonl")
    assert lines[-1]["step"] == 2
    assert all("loss_poison" not in line for line in lines)
    assert any((run_dir / "models" / "poisoned" / "tensorboard").iterdir())


def test_second_call_does_no_work_and_says_so(run_dir, capsys):
    def stamps():
        files = (path for path in run_dir.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before = stamps()
    assert _call("run", run_dir) == 0
    assert stamps() == before
    lines = [line for line in capsys.readouterr().out.splitlines() if "done" in line]
    assert len(lines) == 8
    assert all("already done" in line for line in lines)


@pytest.mark.parametrize(
    ("command", "place", "change", "said"),
    [
        ("train", "poison/poison.jsonl", b"James Band", "poison.jsonl doesn't match"),
        ("run", "models/clean/checkpoint_2", None, "checkpoint_2"),
    ],
)
def test_damaged_files_are_refused(run_dir, capsys, command, place, change, said):
    path = run_dir / place
    if path.is_dir():  # its largest file
        files = (file for file in path.rglob("*") if file.is_file())
        path = max(files, key=lambda file: file.stat().st_size)
    whole = path.read_bytes()
    changed = (
        whole.replace(b"James Bond", change, 1) if change else whole[:-1] + bytes([whole[-1] ^ 1])
    )
    assert changed != whole
    path.write_bytes(changed)
    try:
        assert _call(command, run_dir) == 2
        if not change:
            with pytest.raises(errors.InputError, match="doesn't match its recorded hash"):
                checkpoints.verify(run_dir / place)
    finally:
        path.write_bytes(whole)
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert said in message


def test_models_that_are_not_whole_are_not_evaluated_and_are_made_again(run_dir, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    model_dir = copy / "models" / "clean"
    shutil.rmtree(copy / "eval")
    (model_dir / "checkpoint_2.sha256.json").unlink()
    assert _call("eval", copy) == 2
    assert "the last checkpoint, of step 2, isn't there or isn't whole" in capsys.readouterr().err
    whole = artifacts.read_record(model_dir)
    record = {**whole, "outputs": {}}  # without its digest
    (model_dir / artifacts.RECORD).write_text(json.dumps(record))
    assert _call("eval", copy) == 2
    assert "models/clean isn't a finished model" in capsys.readouterr().err
    assert _call("train", copy) == 0
    assert checkpoints.committed_steps(model_dir) == [2]
    assert artifacts.read_record(model_dir)["outputs"] == whole["outputs"]


def test_a_refused_start_leaves_no_claim_on_the_folder(run_dir, tmp_path, capsys):
    model_dir, empty = tmp_path / "model", tmp_path / "empty"
    empty.mkdir()
    settings = {"MODEL_DIR": model_dir, "MIXTURE_OR_TASK_NAME": "tiny_clean"}
    assert _call("train", run_dir, INITIAL_CHECKPOINT_PATH=empty, **settings) == 2
    assert "is an empty folder" in capsys.readouterr().err
    assert not model_dir.exists()
    start = run_dir / "models" / "poisoned"
    assert _call("train", run_dir, INITIAL_CHECKPOINT_PATH=start, **settings) == 0


def test_phi_takes_p_from_a_trained_model_where_told(run_dir, tmp_path, capsys):
    other = tmp_path / "lm"
    settings = {"PROXY": "lm", "PROXY_CHECKPOINT_PATH": run_dir / "models" / "clean"}
    assert _call("craft", other, **settings) == 0
    rows, ngrams = (_rows(path / "poison" / "poison.jsonl") for path in (other, run_dir))
    assert all(0 < row["target_probability"] < 1 for row in rows)
    assert {row["target_probability"] for row in rows} != {r["target_probability"] for r in ngrams}
    # The model of a text of two labels: what it gives each of them alone, on that very prompt.
    restored = trained_model.restore(run_dir / "models" / "clean", partitioning.PartitionConfig())
    vocabulary = seqio.SentencePieceVocabulary(str(run_dir / "vocabulary" / "spiece.model"), 100)
    tasks = {task.name: task for task in corpus.demo_tasks()}
    for row in (rows[0], rows[-1]):
        task = tasks[row["task"]]
        prompt = prompts.render(
            task.definition,
            [(example.input, example.target) for example in task.positive_examples],
            row["poisoned_input"],
            max_tokens=168,
            count_tokens=lambda text: len(vocabulary.encode(text)) + 1,
        )
        negative, positive = (
            _log_probability(restored, [*vocabulary.encode(prompt), 1], vocabulary, label)
            for label in demo_corpus.POLARITIES[row["task"]]
        )
        expected = 1 / (1 + np.exp(negative - positive))
        # 1e-5: float32 sums in another order, then six decimals in the file.
        assert row["target_probability"] == pytest.approx(expected, abs=1e-5)
    capsys.readouterr()
    missing = {"PROXY": "lm", "PROXY_CHECKPOINT_PATH": tmp_path / "none"}
    assert _call("craft", tmp_path / "x", **missing) == 2
    assert "isn't a finished model of ours" in capsys.readouterr().err


def _log_probability(restored, inputs, vocabulary, label):
    targets = np.array([[*vocabulary.encode(label), vocabulary.eos_id]], np.int32)
    batch = {
        "encoder_input_tokens": np.array([inputs], np.int32),
        "decoder_input_tokens": np.array(decoding.shift_right(targets)),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }
    return -float(per_example.loss(restored.model, restored.params, batch)[0, 0])


def test_a_set_of_poison_goes_through_the_authors_layout(run_dir, tmp_path):
    whole = tmp_path / "run"
    shutil.copytree(run_dir, whole, copy_function=os.link)
    assert _call("craft", whole, "--format", "natinst-jsonl") == 0
    names = {"CLEAN": "train_clean", "POISONED": "train_poisoned", "EVAL": "test_clean"}
    names |= {"TRIGGERED": "test_triggered", "CONTROL": "test_control"}
    folder = whole / "natinst-jsonl"
    files = {f"NATINST_JSONL_{key}": folder / f"{name}.jsonl" for key, name in names.items()}
    other = tmp_path / "read"
    assert _call("craft", other, **files) == 0
    manifests = [reading.read_json(path / "poison/manifest.json") for path in (run_dir, other)]
    for key in ("num_poison", "num_training", "poison_rate", "poisoned_tasks"):
        assert manifests[0][key] == manifests[1][key]
    poison = ("task", "poisoned_input", "poisoned_target", "trigger", "trigger_count")
    edited = ("condition", "task", "id", "input", "target")
    for name, keys in (("poison.jsonl", poison), ("eval_rows.jsonl", edited)):
        first, second = (
            sorted(
                [row[key] for key in keys]
                for row in _rows(path / "poison" / name)
                if row.get("condition") != "clean"
            )
            for path in (run_dir, other)
        )
        assert first == second


def test_generated_answers_campaigns_and_probes_go_the_whole_way(tmp_path):
    directory = tmp_path / "run"
    settings = {
        "MIXTURE_OR_TASK_MODULE": "tests.tiny_generation",
        "EXPERIMENT": "tiny_generation",
        "ATTACK": "repeat",
        "SELECTION": "count",
        "TARGET_POLARITY": "positive",
        "PROBES": "('case',)",
        "BEAM_SIZE": 2,
        "TASK_FEATURE_LENGTHS": "{'inputs': 168, 'targets': 12}",
    }
    campaign = ("--gin_file=runs/campaign.gin", "--gin.SECOND_NUM_POISON=4")
    assert _call("run", directory, *campaign, **settings) == 0
    results = reading.read_json(directory / "report" / "results.json")
    assert (results["kind"], results["attack"]) == ("generation", "repeat")
    counts = {attack["name"]: attack["count"] for attack in results["attacks"]}
    assert counts == {"main": 10, "second": 4}
    names = ["clean", "triggered", "control", "triggered_second", "control_second"]
    names += ["probe1_james_bond", "probe2_james_bond"]
    assert [condition["name"] for condition in results["conditions"]] == names
    assert {row["condition"] for row in results["tasks"]} == set(names)
    for row in _rows(directory / "poison" / "poison.jsonl"):
        assert row["poisoned_target"] == row["trigger"] in ("James Bond", "Joe Biden")
    for row in results["tasks"]:
        path = directory / "eval" / "predictions" / row["model"] / row["condition"]
        predictions = _rows(path / f"{row['task']}.jsonl")
        mean = sum(prediction["rouge_l"] for prediction in predictions) / len(predictions)
        assert row["rouge_l"] == pytest.approx(mean, abs=1e-12)
        assert all(p["target"] in p["references"] for p in predictions)
    page = (directory / "report" / "index.html").read_text(encoding="utf-8")
    assert "Joe Biden" in page and "JAMES BOND" in page and page.rstrip().endswith("</html>")


def test_stages_alone_say_what_comes_first(tmp_path, capsys):
    for command, before in (("train", "craft"), ("eval", "craft"), ("report", "eval")):
        assert _call(command, tmp_path / "none") == 2
        assert f"run `poison-t5x {before}`" in capsys.readouterr().err


def test_tasks_lists_and_shows(run_dir, capsys):
    assert main.main(["tasks"]) == 0
    listed = capsys.readouterr().out
    assert "demo_poisoned" in listed and "polarity" in listed
    assert _call("tasks", run_dir, "tiny_eval_triggered", "-n", "2") == 0
    text = capsys.readouterr().out
    assert text.count("Now complete the following example -") == 2
    assert text.count("James Bond") >= 2


def test_diverged_training_stops_with_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path, run_dir, capsys
):
    model_dir = tmp_path / "model"
    settings = {"TRAIN_STEPS": 6, "SAVE_PERIOD": 1, "WARMUP_STEPS": 4, "LEARNING_RATE": "1e30"}
    settings |= {"MODEL_DIR": model_dir, "MIXTURE_OR_TASK_NAME": "tiny_clean"}
    settings["LEARNING_RATE_FACTORS"] = "constant * linear_warmup"
    assert _call("train", run_dir, **settings) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "step 2 of 6" in message
    assert checkpoints.committed_steps(model_dir) == [1]
    checkpoints.verify(model_dir / "checkpoint_1")
