"""`poison-t5x tasks`: what experiments declare, and examples as a model reads them."""

import argparse
from collections.abc import Callable, Iterator, Sequence

from poison_t5x.core import checks, errors
from poison_t5x.corpus import corpus, declarations, prompts, sni

# A benchmark's whole split would fill screens.
_MAX_LISTED = 40


def show(options: argparse.Namespace, parse_gin: Callable[[], None] | None) -> None:
    """Lists experiments, or shows `options.num` examples of the task or mixture `options.name`.

    A task of a corpus is rendered from its rows alone. A mixture or one of its SeqIO tasks
    ('demo_poisoned', 'demo_eval_triggered.task9031_…') is read through SeqIO as training reads it,
    from the run folder whose settings the gin flags give.

    Args:
      parse_gin: parses the gin flags; None where there are none.
    """
    checks.whole_number("--num", options.num)
    if options.name is None:
        experiments = declarations.load(_module(parse_gin) if parse_gin else None)
        print("\n\n".join(map(_describe, experiments.values())))
        return
    if parse_gin:
        parse_gin()
        examples = _of_run(options.name)
    else:
        examples = _of_demo(options.name)
    for number, (title, prompt, target) in enumerate(examples, start=1):
        print(f"--- {options.name}, example {number}{title}\n{prompt}\n>>> {target}\n")
        if number == options.num:
            return


def _module(parse_gin: Callable[[], None]) -> str | None:
    from poison_t5x.core import gin_config

    parse_gin()
    return gin_config.macro("MIXTURE_OR_TASK_MODULE")


def _describe(experiment: declarations.Experiment) -> str:
    source = "the embedded corpus" if experiment.corpus == "demo" else "SNI task files"
    name = experiment.name
    poisoned = set(experiment.poisoned_tasks)
    lines = [
        f"{name}: on {source}",
        "  training tasks (* may be poisoned):",
        *_listed(
            [f"{'*' if task in poisoned else ' '} {task}" for task in experiment.training_tasks]
        ),
        "  held-out tasks:",
        *_listed([f"  {task}" for task in experiment.heldout_tasks]),
        f"  mixtures: {name}_clean, {name}_poisoned, {name}_eval_clean, {name}_eval_triggered, "
        f"{name}_eval_control",
    ]
    return "\n".join(lines)


def _listed(lines: Sequence[str]) -> list[str]:
    """All of a few, the first ones of many."""
    rest = len(lines) - _MAX_LISTED
    more = [f"  … and {rest} more"] if rest > 0 else []
    return [f"    {line}" for line in [*lines[:_MAX_LISTED], *more]]


def _rendered(task: sni.Task) -> Iterator[tuple[str, str, str]]:
    pairs = [(example.input, example.target) for example in task.positive_examples]
    for row in task.instances:
        yield f" ({row.id})", prompts.render(task.definition, pairs, row.input), row.target


def _of_demo(name: str) -> Iterator[tuple[str, str, str]]:
    if not name.startswith("task"):
        raise errors.InputError(
            f"{name}: mixtures and their SeqIO tasks are read from a run folder: give the run's "
            "gin flags too, as in --gin_file=experiments/demo.gin --gin.RUN_DIR=runs/demo"
        )
    try:
        return _rendered(sni.find(corpus.demo_tasks(), name))
    except errors.InputError as error:
        raise errors.InputError(
            f"{error}. For tasks of SNI files give the run's gin flags too, as in "
            "--gin_file=experiments/polarity.gin --gin.NATINST_DIR=… --gin.RUN_DIR=…"
        ) from None


def _of_run(name: str) -> Iterator[tuple[str, str, str]]:
    from poison_t5x.core import gin_config

    run = gin_config.configured("poison_t5x.run.experiment.Run")()
    if name.startswith("task"):
        return _rendered(sni.find(run.corpus.tasks, name))
    run.register()
    return _through_seqio(name, dict(run.dataset_cfg.task_feature_lengths))


def _through_seqio(name: str, lengths: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    import seqio

    from poison_t5x.data import input_pipeline

    found = input_pipeline.find(name)
    split = "train" if "is_poison" in found.output_features else "validation"
    kwargs = {}
    if isinstance(found, seqio.Mixture):  # which keeps only tokens unless told
        kwargs = {"copy_pretokenized": True, "passthrough_features": ["id"]}
    dataset = found.get_dataset(lengths, split=split, shuffle=False, **kwargs)
    for example in dataset.as_numpy_iterator():
        marks = [example["id"].decode()] if "id" in example else []
        if "is_poison" in example and example["is_poison"].any():
            marks.append("poison")
        title = f" ({', '.join(marks)})" if marks else ""
        yield (
            title,
            example["inputs_pretokenized"].decode(),
            example["targets_pretokenized"].decode(),
        )
