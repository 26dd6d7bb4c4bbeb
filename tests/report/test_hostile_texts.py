"""Pages whose every text is hostile: no script of the data runs, and nothing is loaded.

Read by a parser, and opened in headless Chromium where there is one.
"""

import html.parser
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import threading

import pytest

from poison_t5x.cli import main
from poison_t5x.report import comparison, plots, run_page, study
from poison_t5x.studies import aggregate, collect
from tests.defenses import crafted
from tests.report import made_up, made_up_defense
from tests.report.conftest import SECONDS
from tests.report.page import Page
from tests.studies import driver

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# What a script of the data would do: the page's language is ours to say.
RUN = "document.documentElement.lang='ran'"
PAGES = ("run", "campaign", "generation", "comparison", "study", "scan")


def name(address: str) -> str:
    """A hostile text that can be a file's name, too."""
    where = address.replace("/", "\\")
    return f"<img src=x onerror={RUN}><img src='{where}'>\"' \u202e<b"


def text(address: str) -> str:
    """A hostile text: it closes what may be around it, and begins what loads and runs."""
    return (
        f"\0--></script></style></title></textarea></noscript></select></svg>]]>{name(address)}>"
        f"<script>{RUN}</script><script src={address}></script><svg onload={RUN}><iframe src="
        f"{address}></iframe><a href='javascript:{RUN}' id=rows>x</a><base href={address}><style>"
        f"@import '{address}'; body {{background: url({address})}}</style><meta http-equiv=refresh "
        f'content="0; {address}"><details open ontoggle={RUN}>" onfocus="{RUN}" autofocus x="'
        f"' onmouseover='{RUN}' \\3c script\\3e &lt;script&gt;{RUN}&lt;/script&gt; \u202e"
        "{{ 7 * 7 }} {% raw %} $&`"
    )


@pytest.fixture(scope="module")
def outside():
    """(address, paths asked for) of a server that no page may ask anything."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()


def _spoil(folder: pathlib.Path, address: str) -> pathlib.Path:
    """Makes names, labels, phrases, ids and notes of a made-up run hostile, and files' names."""
    words = {
        **dict.fromkeys([made_up.TRIGGER, made_up.CONTROL, "Joe Biden", "Zorro"], text(address)),
        **dict.fromkeys(["ruined my day", "a made-up run", "saturated:"], text(address)),
        **{label: f"{label} {text(address)}" for label in ("NEG", "POS", "Sentiment Analysis")},
        **{task: f"{task}{name(address)}" for task in made_up.HELD_OUT + made_up.POISONED},
        **{f"{kind}-": f"{kind}{name(address)}-" for kind in ("held", "row", "clean")},
    }

    def spoiled(value):
        if isinstance(value, dict):
            return {key: spoiled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoiled(one) for one in value]
        for old, new in words.items() if isinstance(value, str) else ():
            value = value.replace(old, new)
        return value

    for path in [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]:
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        path.write_text("\n".join(json.dumps(spoiled(json.loads(line))) for line in lines))
        path.rename(path.with_name(spoiled(path.name)))
    for file in ("config.gin", "command.txt"):
        hostile = text(address).encode(errors="replace").decode()
        (folder / file).write_text(f"TRIGGER = {hostile!r}\n# {hostile}\n")
    return folder


def _run_page(folder, address, make) -> pathlib.Path:
    return run_page.write_report(_spoil(make(folder), address), SECONDS)


def _campaign(folder):
    return made_up_defense.add(made_up.classification_run(folder, campaign=True))


def _comparison(folder, address) -> pathlib.Path:
    runs = [folder / f"{number}{name(address)}" for number in range(2)]
    for run in runs:
        _run_page(run, address, made_up.classification_run)
        shutil.move(run / "eval/results.json", run / "report/results.json")
    comparison.write_comparison(list(map(str, runs)), str(folder / "out"), lambda line: None)
    return folder / "out/index.html"


def _study(folder, address) -> pathlib.Path:
    folder /= name(address)
    folder.mkdir(parents=True)
    values = (text(address), f"{text(address)}2")
    rows = [
        driver.row(rate, TRIGGER=one, SEED=0) for rate, one in zip((0.1, 0.8), values, strict=True)
    ]
    rows.append(collect.StudyRow(name(address), rows[0].macros, "failed", error=text(address)))
    config = driver.config(
        folder,
        base=driver.BASE | {"TRIGGER": "a"},
        grid={"TRIGGER": values},
        x="TRIGGER",
        question=text(address),
    )
    points = aggregate.points(rows, config.base)
    results = study.StudyResults(config, rows, points, {}, aggregate.difference)
    drawn = study.charts(results)
    told = [*study.finding(results, drawn), text(address)]
    return study.write_page(folder, results, drawn, told, text(address))


def _scan(folder, address) -> pathlib.Path:
    folder.mkdir()
    rows, _ = crafted.poisoned_rows()
    hostile = text(address)
    lines = [
        {"input": row.input + hostile * (n % 9 == 0), "output": row.target + name(address)}
        for n, row in enumerate(rows[:400])
    ]
    path = folder / f"{name(address)}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    flags = ("--output", str(folder / "out"), "--scores", "trigger_search,onion")
    assert main.main(["scan", str(path), *flags]) in (0, 1)
    return folder / "out/index.html"


@pytest.fixture(scope="module")
def pages(outside, tmp_path_factory):
    """Name -> the page of that kind."""
    folder, address = tmp_path_factory.mktemp("hostile"), outside[0]
    makers = {
        "run": lambda at: _run_page(at, address, made_up.classification_run),
        "campaign": lambda at: _run_page(at, address, _campaign),
        "generation": lambda at: _run_page(at, address, made_up.generation_run),
        "comparison": lambda at: _comparison(at, address),
        "study": lambda at: _study(at, address),
        "scan": lambda at: _scan(at, address),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "png_bytes", lambda _: b"")
        return {kind: make(folder / kind) for kind, make in makers.items()}


class _Attributes(html.parser.HTMLParser):
    def __init__(self, content: str):
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, key, value or "") for key, value in attrs]


@pytest.mark.parametrize("kind", PAGES)
def test_hostile_texts_stay_texts(pages, kind):
    content = pages[kind].read_text(encoding="utf-8")
    page = Page(content)  # knows our own scripts, and finds every element closed in order
    assert page.open == []
    assert "<b" in page.text + json.dumps(page.data), "the hostile texts are there"
    others = {"iframe", "img", "script", "base", "textarea", "object", "embed", "form"}
    assert not others & set(page.tags), others & set(page.tags)
    for tag, key, value in _Attributes(content).found:
        assert not key.startswith("on") and key not in ("src", "srcset", "srcdoc", "action"), tag
        if key in ("href", "xlink:href"):
            assert value == "data:," or not re.match(r"\W*(\w+:|//)", value), value
    refreshes = [one for one in _Attributes(content).found if one[1:] == ("http-equiv", "refresh")]
    assert refreshes == []


def _opened(path: pathlib.Path, profile: pathlib.Path) -> _Attributes:
    """A page's attributes after Chromium has run it for some seconds."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000")
    line = [CHROMIUM, *flags, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(line, capture_output=True, timeout=120, check=True)
    content = done.stdout.decode("utf-8", errors="replace")
    assert "</html>" in content
    return _Attributes(content)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser_no_text_runs_and_nothing_is_loaded(pages, outside, tmp_path):
    address, asked = outside
    for kind, path in pages.items():
        shown = _opened(path, tmp_path / "profile").found
        assert ("html", "lang", "en") in shown, kind
        if kind in ("run", "campaign", "generation"):  # our own script has made the tables' heads
            assert ("button", "class", "order") in shown, kind
    assert asked == []
    # Were it not escaped, the page's policy would still stop it; without a policy it does run.
    hostile = text(address).replace("\ud800", "").replace("\0", "")
    hostile = hostile.replace("http-equiv=refresh", "")  # which no policy forbids
    raw, bare = pages["run"].with_name("raw.html"), tmp_path / "bare.html"
    whole = pages["run"].read_text(encoding="utf-8")
    raw.write_text(whole.replace("<main>", f"<main><div title='{hostile}", 1), encoding="utf-8")
    shown = _opened(raw, tmp_path / "profile").found
    assert ("html", "lang", "en") in shown and ("iframe", "src", address) in shown
    assert asked == []
    bare.write_text(f"<!DOCTYPE html><html lang=en><body>{hostile}", encoding="utf-8")
    assert ("html", "lang", "ran") in _opened(bare, tmp_path / "profile").found
    assert asked
