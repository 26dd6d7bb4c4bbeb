"""A strict reader of pages, and changes to a run's results."""

import html.parser
import json
import pathlib

from poison_t5x.report import render
from poison_t5x.report import results as results_lib

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}

SCRIPT = (pathlib.Path(render.__file__).parent / "templates/browser.js").read_text(encoding="utf-8")
OWN_SCRIPTS = [
    {},
    *(
        {"type": "application/json", "id": f"{name}-data"}
        for name in ("poison-rows", "prediction-rows")
    ),
]


class Page(html.parser.HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.ids, self.marks, self.labels = [], [], [], [], []
        # The page's own scripts: what a row brings along would be a tag.
        self.data, self.script, self._reads = {}, "", None
        self.text = ""
        self.feed(text)
        self.close()
        assert self.script in ("", SCRIPT)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "script" and attrs in OWN_SCRIPTS:
            self._reads = attrs.get("id", "script")
        else:
            self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.labels += [attrs["aria-label"]] if "aria-label" in attrs else []
        self.marks += [""] if tag == "mark" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element: {self.getpos()}"
        self._reads = None

    def handle_data(self, data):
        if self._reads == "script":
            self.script += data
            return
        if self._reads:
            self.data[self._reads] = json.loads(data)
            return
        if not {"style", "svg"} & {*self.open}:
            self.text += data
        if self.open and self.open[-1] == "mark":
            self.marks[-1] += data


def edit_results(run_dir: pathlib.Path, **changes) -> results_lib.Results:
    """Changes a run's results file and returns it, parsed."""
    path = run_dir / "eval/results.json"
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(raw))
    return results_lib.parse(raw)
