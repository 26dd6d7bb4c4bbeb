"""Stage folders: made once, whole, and never by other settings than their record tells."""

import json

import pytest

from poison_t5x.core import artifacts, errors, paths, reading


class Stage:
    """A stage that writes its settings and counts its runs."""

    def __init__(self, directory, **kwargs):
        self.directory, self.kwargs = directory, kwargs
        self.runs, self.said, self.found = 0, [], []

    def __call__(self, settings, fail=False):
        def make(folder):
            self.runs += 1
            self.found.append(sorted(path.name for path in folder.glob("*.txt")))
            (folder / f"part{self.runs}.txt").write_text("part", encoding="utf-8")
            if fail:
                raise RuntimeError("killed")
            (folder / "sub").mkdir()
            (folder / "sub" / "result.json").write_text(json.dumps(settings), encoding="utf-8")

        return artifacts.run_stage(
            self.directory, "cook", settings, make, log=self.said.append, **self.kwargs
        )


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "run" / "cooked")


def _refusal(function, *args):
    with pytest.raises(errors.InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_stage_runs_once(stage):
    assert stage({"seed": 1}) is True
    assert stage({"seed": 1}) is False
    assert stage.runs == 1
    assert stage.said[0].startswith("cook: done in ")
    assert stage.said[1] == f"cook: already done in {stage.directory}"
    assert [path.name for path in stage.directory.parent.iterdir()] == ["cooked"]


def test_the_record_holds_settings_and_hashes(stage):
    stage({"sizes": (1, 2), "name": "é"})
    record = artifacts.read_record(stage.directory)
    assert record["stage"] == "cook"
    assert record["settings"] == {"sizes": [1, 2], "name": "é"}
    assert record["outputs"] == {
        name: artifacts.sha256(stage.directory / name) for name in ("part1.txt", "sub/result.json")
    }
    assert stage({"sizes": [1, 2], "name": "é"}) is False  # a tuple is a list in JSON


def test_other_settings_are_refused_by_name(stage):
    stage({"seed": 1, "rate": 0.5, "kept": "x"})
    message = _refusal(stage, {"seed": 2, "kept": "x", "new": True})
    assert str(stage.directory) in message
    assert "seed = 1 (now 2)" in message
    assert "rate = 0.5 (now None)" in message
    assert "new = None (now True)" in message
    assert "kept" not in message
    assert stage.runs == 1


def test_only_the_nested_settings_that_changed_are_named(stage):
    stage({"craft": {"seed": 1, "trigger": "James Bond"}, "tasks": {"task1": "ab"}})
    message = _refusal(stage, {"craft": {"seed": 2, "trigger": "James Bond"}, "tasks": {}})
    assert "craft.seed = 1 (now 2)" in message
    assert "tasks.task1 = 'ab' (now None)" in message
    assert "trigger" not in message


def test_a_changed_file_is_refused(stage):
    stage({"seed": 1})
    path = stage.directory / "sub" / "result.json"
    path.write_text("{}", encoding="utf-8")
    message = _refusal(stage, {"seed": 1})
    assert str(path) in message and "doesn't match its recorded hash" in message
    path.unlink()
    assert f"{path} is missing" in _refusal(stage, {"seed": 1})


def test_a_killed_attempt_leaves_no_folder_and_is_started_again(stage):
    with pytest.raises(RuntimeError, match="killed"):
        stage({"seed": 1}, fail=True)
    assert not stage.directory.exists()
    assert artifacts.read_record(stage.directory) is None
    assert stage({"seed": 1}) is True
    assert stage.found == [[], []]  # nothing was left of the first attempt
    assert sorted(artifacts.read_record(stage.directory)["outputs"]) == [
        "part2.txt",
        "sub/result.json",
    ]
    assert [path.name for path in stage.directory.parent.iterdir()] == ["cooked"]


@pytest.mark.parametrize(("second", "found"), [(1, ["part1.txt"]), (2, [])])
def test_keep_partial_keeps_files_of_the_same_settings_only(tmp_path, second, found):
    stage = Stage(tmp_path / "cooked", keep_partial=True)
    with pytest.raises(RuntimeError, match="killed"):
        stage({"seed": 1}, fail=True)
    assert stage({"seed": second}) is True
    assert stage.found == [[], found]
    assert sorted(path.name for path in stage.directory.glob("*.txt")) == [*found, "part2.txt"]
    assert artifacts.read_record(stage.directory)["settings"] == {"seed": second}


def test_a_folder_that_no_stage_made_is_refused(stage):
    stage.directory.mkdir(parents=True)
    assert "isn't a finished cook folder" in _refusal(stage, {})
    assert stage.runs == 0


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"text"', b"\xff\xfe"])
def test_a_damaged_record_is_refused(stage, content):
    stage({"seed": 1})
    path = stage.directory / artifacts.RECORD
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert f"{path}: " in _refusal(stage, {"seed": 1})


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    message = _refusal(Stage(tmp_path / "file" / "cooked"), {})
    assert str(tmp_path / "file") in message


def test_verify_and_fingerprint_need_a_finished_stage(stage):
    assert "not a finished stage folder" in _refusal(artifacts.verify, stage.directory)
    assert "not a finished stage folder" in _refusal(artifacts.fingerprint, stage.directory)
    stage({"seed": 1})
    artifacts.verify(stage.directory)


def test_a_fingerprint_follows_from_settings_and_contents_alone(tmp_path):
    stages = [Stage(tmp_path / name) for name in "abc"]
    for stage, seed in zip(stages, (1, 1, 2), strict=True):
        stage({"seed": seed})
    first, same, other = (artifacts.fingerprint(stage.directory) for stage in stages)
    assert first == same != other


def test_writing_atomically_leaves_no_partial_file(tmp_path):
    path = tmp_path / "new" / "file.txt"
    artifacts.write_atomically(path, "ä\n")
    artifacts.write_atomically(path, "b\n")
    assert path.read_bytes() == b"b\n"
    assert [found.name for found in path.parent.iterdir()] == ["file.txt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    artifacts.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        artifacts.write_atomically(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "old"


def test_jsonl_round_trip(tmp_path):
    rows = [{"b": "é\n", "a": 1}, {}]
    artifacts.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert reading.read_jsonl(tmp_path / "rows.jsonl") == rows
    assert (tmp_path / "rows.jsonl").read_bytes() == '{"b": "é\\n", "a": 1}\n{}\n'.encode()


def test_canonical_json_is_independent_of_the_order_of_keys():
    assert artifacts.canonical_json({"b": 1, "a": 2}) == artifacts.canonical_json({"a": 2, "b": 1})


def test_a_claim_is_no_finished_stage(tmp_path):
    artifacts.write_record(tmp_path, "train", {"steps": 3})
    assert artifacts.read_record(tmp_path) is None
    assert artifacts.read_settings(tmp_path) == {"steps": 3}
    assert artifacts.read_settings(tmp_path / "none") is None
    artifacts.write_record(tmp_path, "train", {"steps": 3}, {"parameters": "ab"}, 1.23456)
    assert artifacts.read_record(tmp_path)["seconds"] == 1.235


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gs://bucket/run", "RUN_DIR: expected a path on a disk of this machine, found 'gs://"),
        ("", "RUN_DIR: expected a path"),
        (3, "RUN_DIR: expected a path"),
    ],
)
def test_paths_that_are_no_folder_of_this_machine_are_refused(value, message):
    assert _refusal(paths.resolve, "RUN_DIR", value).startswith(message)


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(paths.resolve("RUN_DIR", text)) for text in ("~/run", "run/~")] == [
        "/home/me/run",
        "run/~",
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_a_refused_start_leaves_nothing(tmp_path, keep):
    def make(folder):
        raise errors.InputError("no")

    with pytest.raises(errors.InputError, match="no"):
        artifacts.run_stage(tmp_path / "a" / "b", "b", {}, make, log=print, keep_partial=keep)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_what_is_half_written_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    for name in ("a.partial/b.partial", "eval/c.partial", "m/x.orbax-checkpoint-tmp-1", "whole"):
        (run / name).mkdir(parents=True)
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run2.partial").mkdir()
    (run / "table.csv.partial").write_text("")
    found = [path.relative_to(tmp_path).as_posix() for path in artifacts.leftovers(run)]
    assert found == [
        "run/a.partial",
        "run/eval/c.partial",
        "run/m/x.orbax-checkpoint-tmp-1",
        "run/table.csv.partial",
        "run.partial",
    ]
    artifacts.remove_leftovers(run)
    assert artifacts.leftovers(run) == [] and (run / "whole").exists()
