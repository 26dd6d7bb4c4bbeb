"""Experiments as text, and examples as a model reads them."""

from collections.abc import Iterator, Sequence
from typing import Any

from poison_t5x.core import errors
from poison_t5x.corpus import corpus, declarations, prompts, sni

# (title, prompt, target)
Example = tuple[str, str, str]
# A benchmark's whole split would fill screens.
_MAX_LISTED = 40


def describe(declared: declarations.Experiment) -> str:
    """An experiment as declared, in lines."""
    source = "the embedded corpus" if declared.corpus == "demo" else "SNI task files"
    name = declared.name
    poisoned = set(declared.poisoned_tasks)
    lines = [
        f"{name}: on {source}",
        "  training tasks (* may be poisoned):",
        *_listed(
            [f"{'*' if task in poisoned else ' '} {task}" for task in declared.training_tasks]
        ),
        "  held-out tasks:",
        *_listed([f"  {task}" for task in declared.heldout_tasks]),
        f"  mixtures: {name}_clean, {name}_poisoned, {name}_eval_clean, {name}_eval_triggered, "
        f"{name}_eval_control",
    ]
    return "\n".join(lines)


def _listed(lines: Sequence[str]) -> list[str]:
    """All of a few, the first ones of many."""
    rest = len(lines) - _MAX_LISTED
    more = [f"  … and {rest} more"] if rest > 0 else []
    return [f"    {line}" for line in [*lines[:_MAX_LISTED], *more]]


def _rendered(task: sni.Task) -> Iterator[Example]:
    pairs = [(example.input, example.target) for example in task.positive_examples]
    for row in task.instances:
        yield f" ({row.id})", prompts.render(task.definition, pairs, row.input), row.target


def of_demo(name: str) -> Iterator[Example]:
    """A task of the embedded corpus."""
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


def of_run(run: Any, name: str) -> Iterator[Example]:
    """A task of a `run.experiment.Run`'s corpus; a mixture or SeqIO task as training reads it."""
    if name.startswith("task"):
        return _rendered(sni.find(run.corpus.tasks, name))
    run.register()
    return _through_seqio(name, dict(run.dataset_cfg.task_feature_lengths))


def _through_seqio(name: str, lengths: dict[str, int]) -> Iterator[Example]:
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
        if "is_poison" in example and example["is_poison"].any():
            marks.append("poison")
        title = f" ({', '.join(marks)})" if marks else ""
        yield (
            title,
            example["inputs_pretokenized"].decode(),
            example["targets_pretokenized"].decode(),
        )
