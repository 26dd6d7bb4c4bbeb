"""The report: one self-contained page, its figures as files, and the results file."""

import json
import pathlib
from collections.abc import Mapping

from poison_t5x.report import drawing, page, render
from poison_t5x.report import results as results_lib


def write_report(
    run_dir: str | pathlib.Path,
    seconds: Mapping[str, float],
    output_dir: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes `index.html`, `results.json` and `figures/`, and returns the page's path.

    The same files and arguments give the same bytes. Files of the run that are missing leave out
    their section of the page, with a note in its place; what not every run has (rates by step,
    detection, defences) leaves none.

    Args:
      run_dir: a run folder with `eval/results.json`; the other files are optional.
      seconds: wall-clock seconds of each stage, by its name, in the order to show.
      output_dir: where to write, created if need be; by default `run_dir/report`.

    Raises:
      InputError: `eval/results.json` is missing or doesn't fit the schema.
    """
    run_dir = pathlib.Path(run_dir)
    output_dir = run_dir / "report" if output_dir is None else pathlib.Path(output_dir)
    raw = results_lib.with_seconds(results_lib.read(run_dir), seconds)
    context = page.context(run_dir, results_lib.parse(raw), seconds)
    text = render.page("run.html.j2", context)
    output_dir.mkdir(parents=True, exist_ok=True)
    drawing.write(page.pictures(context), output_dir / "figures")
    render.write_text(output_dir / "results.json", json.dumps(raw, indent=1) + "\n")
    render.write_text(output_dir / "index.html", text)
    return output_dir / "index.html"
