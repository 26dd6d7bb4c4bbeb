"""List experiments and their tasks, or show examples as a model reads them.

NAME is a task of the embedded corpus, or with a run's gin flags: a task file's stem or number
(task363), a mixture (demo_poisoned), or a SeqIO task of one (demo_eval_triggered.task9031_…), read
as training reads it. Without NAME, all experiments are listed, MIXTURE_OR_TASK_MODULE's too.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence

from poison_t5x.cli import stage
from poison_t5x.core import errors, settings
from poison_t5x.train import program

EXAMPLE = f"""\
poison-t5x tasks
poison-t5x tasks task9001
poison-t5x tasks demo_poisoned -n 10 {stage.DEMO}"""
# (title, prompt, target)
_Example = tuple[str, str, str]
# A benchmark's whole split would fill screens.
_MAX_LISTED = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a task or mixture to show")
    parser.add_argument(
        "-n", "--num", type=int, default=3, help="how many examples (default: %(default)s)"
    )
    program.add_gin_flags(parser)


def run(options: argparse.Namespace) -> None:
    from poison_t5x.corpus import declarations

    settings.checked("--num", options.num, settings.Count)
    if options.name is None:
        macros = program.read_macros(options)
        experiments = declarations.load(macros.get_value("MIXTURE_OR_TASK_MODULE"))
        print("\n\n".join(map(_describe, experiments.values())))
        return
    examples = _of_run(options) if program.has_gin(options) else _of_demo(options.name)
    for number, example in enumerate(itertools.islice(examples, options.num), start=1):
        title, prompt, target = example
        print(f"--- {options.name}, example {number}{title}\n{prompt}\n>>> {target}\n")


def _describe(declared) -> str:
    """A `declarations.Experiment` as declared, in lines."""
    source = "the embedded corpus" if declared.corpus == "demo" else "SNI task files"
    marks = {task: "*" for task in declared.poisoned_tasks}
    conditions = ("clean", "poisoned", "eval_clean", "eval_triggered", "eval_control")
    return "\n".join(
        [
            f"{declared.name}: on {source}",
            "  training tasks (* may be poisoned):",
            *_listed([f"{marks.get(task, ' ')} {task}" for task in declared.training_tasks]),
            "  held-out tasks:",
            *_listed([f"  {task}" for task in declared.heldout_tasks]),
            f"  mixtures: {', '.join(f'{declared.name}_{name}' for name in conditions)}",
        ]
    )


def _listed(lines: Sequence[str]) -> list[str]:
    """All of a few, the first ones of many."""
    rest = len(lines) - _MAX_LISTED
    more = [f"  … and {rest} more"] if rest > 0 else []
    return [f"    {line}" for line in [*lines[:_MAX_LISTED], *more]]


def _rendered(tasks, name: str) -> Iterator[_Example]:
    from poison_t5x.corpus import prompts, sni

    task = sni.find(tasks, name)
    pairs = [(example.input, example.target) for example in task.positive_examples]
    return (
        (f" ({row.id})", prompts.render(task.definition, pairs, row.input), row.target)
        for row in task.instances
    )


def _of_demo(name: str) -> Iterator[_Example]:
    """A task of the embedded corpus."""
    from poison_t5x.corpus import corpus

    if not name.startswith("task"):
        raise errors.InputError(
            f"{name}: mixtures and their SeqIO tasks are read from a run folder: give the run's "
            "gin flags too, as in --gin_file=experiments/demo.gin --gin.RUN_DIR=runs/demo"
        )
    try:
        return _rendered(corpus.demo_tasks(), name)
    except errors.InputError as error:
        raise errors.InputError(
            f"{error}. For tasks of SNI files give the run's gin flags too, as in "
            "--gin_file=experiments/polarity.gin --gin.NATINST_DIR=… --gin.RUN_DIR=…"
        ) from None


def _of_run(options: argparse.Namespace) -> Iterator[_Example]:
    """A task of a run's corpus; a mixture or SeqIO task as training reads it."""
    opened = stage.make_run(options)
    if options.name.startswith("task"):
        return _rendered(opened.corpus.tasks, options.name)
    opened.register()
    return _through_seqio(options.name, dict(opened.dataset_cfg.task_feature_lengths))


def _through_seqio(name: str, lengths: dict[str, int]) -> Iterator[_Example]:
    import seqio

    from poison_t5x.data import input_pipeline

    provider = input_pipeline.find(name)
    split = "train" if "is_poison" in provider.output_features else "validation"
    kwargs = {}
    if isinstance(provider, seqio.Mixture):  # which keeps only tokens unless told
        kwargs = {"copy_pretokenized": True, "passthrough_features": ["id"]}
    dataset = provider.get_dataset(lengths, split=split, shuffle=False, **kwargs)
    for example in dataset.as_numpy_iterator():
        marks = [example["id"].decode()] if "id" in example else []
        marks += ["poison"] if "is_poison" in example and example["is_poison"].any() else []
        texts = (example[f"{name}_pretokenized"].decode() for name in ("inputs", "targets"))
        yield f" ({', '.join(marks)})" if marks else "", *texts
