"""The page of a report in a real browser, as wide as a desk and as narrow as a phone: what a reader sees and does."""

from __future__ import annotations

import json
import math
import re
import shutil
import sqlite3
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from heterobench.config.schema import Tuning
from heterobench.report import outputs
from heterobench.report.build import build
from heterobench.report.table import Source
from reports import ARMS, GROUPS, PARTITIONS, lose, make_benchmark, make_data, store

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
SCENARIO = "digits.dirichlet-0.1.mlp.full"

pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no chromium is installed: apt-get install chromium"),
    pytest.mark.xdist_group("report_page"),
]

WATCH = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(`${event.message} (${event.lineno})`), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
</script>"""
ASK = """<script>
addEventListener("load", () => {
  let answer;
  try { answer = (%s)(); } catch (error) { answer = { raised: error.stack }; }
  parent.postMessage(JSON.stringify(answer), "*");
});
</script>"""
# A window cannot be as narrow as a phone, a frame can.
FRAME = """<!doctype html><body style="margin:0">
<iframe src="page.html" style="border:0;display:block;width:%dpx;height:%dpx"></iframe>
<script>
addEventListener("message", (event) => {
  const made = document.createElement("pre");
  made.id = "answer";
  made.textContent = event.data;
  document.body.append(made);
});
</script>"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Results with everything that a report can have, runs that failed and runs that are missing among it."""
    benchmark = make_benchmark(
        tmp_path_factory.mktemp("project"),
        PARTITIONS,
        ARMS,
        seeds=3,
        metrics=GROUPS,
        snapshots=3,
        tuning=Tuning(trials=3, seeds=[100]),
    )
    whole = make_data(benchmark)
    curves = pd.concat(whole.curves.values())
    evaluation, ledger = lose(whole.evaluation, whole.ledger, SCENARIO, "scaffold", [1])
    evaluation, ledger = lose(evaluation, ledger, SCENARIO, "fednova", [0], "RuntimeError: <b>out</b> of memory")
    ledger["dirty"] = pd.array([(False, True, None)[k % 3] for k in range(len(ledger))], dtype="boolean")
    found = make_data(benchmark, evaluation, curves, ledger)
    store(found)
    with sqlite3.connect(benchmark.project.root / "mlflow.db") as tracker:  # as the report reads it
        tracker.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        tracker.execute("INSERT INTO experiments VALUES (7, 'label-skew/mini', 'active')")
    build(benchmark)
    return found


def browse(file: Path, size: tuple[int, int], script: str, folder: Path):
    """What `script`, a function in JavaScript, says on the page in a frame of a size; an error of it fails."""
    text = file.read_text(encoding="utf-8")
    text = text.replace("<head>", "<head>" + WATCH, 1).replace("</body>", ASK % script + "</body>", 1)
    (folder / "page.html").write_text(text, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME % size, encoding="utf-8")
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,1000"),
        *("--virtual-time-budget=10000", "--dump-dom", (folder / "frame.html").as_uri()),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="answer">(.*?)</pre>', result.stdout, flags=re.DOTALL)
    assert found, result.stderr[-2000:]
    answer = json.loads(unescape(found[1]))
    assert not (isinstance(answer, dict) and "raised" in answer), answer
    return answer


@pytest.fixture(params=WIDTHS)
def see(request, data, tmp_path):
    """A function that asks the page, at one of the two widths."""
    return lambda script: browse(outputs.report_file(data.benchmark), WIDTHS[request.param], script, tmp_path)


LAYOUT = """() => {
  const wide = document.scrollingElement;
  const beyond = [...document.querySelectorAll("main *, nav *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.right > innerWidth + 0.5 && !element.closest(".scroll");
  });
  const scroll = wide.scrollWidth;
  for (const details of document.querySelectorAll("details")) details.open = true;
  return {
    inner: innerWidth,
    scroll,
    beyond: beyond.slice(0, 5).map((element) => element.outerHTML.slice(0, 120)),
    unfolded: wide.scrollWidth,
    problems,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
    elsewhere: [...document.querySelectorAll("[src], link, object, iframe")].map((one) => one.outerHTML.slice(0, 80)),
  };
}"""


def test_nothing_is_wider_than_the_window_and_nothing_is_asked_for(see, request):
    found = see(LAYOUT)
    assert found["inner"] == WIDTHS[request.node.callspec.params["see"]][0]
    assert found["scroll"] <= found["inner"]
    assert found["unfolded"] <= found["inner"]
    assert found["beyond"] == []
    assert found["problems"] == []
    assert found["requests"] == []
    assert all(element.startswith(("<img", "<script>")) for element in found["elsewhere"])


READABLE = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const size = (element) => parseFloat(getComputedStyle(element).fontSize);
  const text = [...document.querySelectorAll("main p, main td, main th, main a, main dd, figcaption")];
  const scale = [...document.querySelectorAll("figure svg")].map(
    (svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width);
  return { smallest: Math.min(...text.map(size)), scales: scale };
}"""


def test_words_and_figures_are_large_enough_to_read(see):
    found = see(READABLE)
    assert found["smallest"] >= 11.5
    # a point of a figure is never drawn smaller than one pixel: its letters have 8 points and more
    assert min(found["scales"]) >= 1
    assert max(found["scales"]) <= 4 / 3 + 0.01


SORTED = """() => {
  const wrong = [];
  let sorted = 0;
  const key = (cell) => cell.dataset.value !== undefined ? Number(cell.dataset.value)
    : (cell.querySelector(".value") || cell).textContent.trim();
  const order = new Intl.Collator("en", { numeric: true }).compare;
  for (const table of document.querySelectorAll("table.numbers")) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const rows = () => [...table.tBodies].map((body) => [...body.rows]);
    const before = rows();
    heads.forEach((head, index) => {
      const button = head.querySelector("button");
      if (!button) return wrong.push(["no button", table.closest("section").id, head.textContent]);
      for (const click of [1, 2]) {
        button.click();
        const up = head.getAttribute("aria-sort") === "ascending";
        if (!up && head.getAttribute("aria-sort") !== "descending") wrong.push(["state", head.textContent]);
        rows().forEach((body, place) => {
          if (new Set(body).size !== before[place].length || body.some((row) => !before[place].includes(row)))
            wrong.push(["rows", table.closest("section").id]);
          if (table.tBodies[place].classList.contains("title")) return;
          const keys = body.map((row) => key(row.cells[index]));
          const empty = keys.map((value) => value === "–");
          if (empty.some((value, n) => value && n + 1 < empty.length && !empty[n + 1]))
            wrong.push(["empty", head.textContent]);
          const full = keys.filter((value) => value !== "–");
          full.slice(1).forEach((value, n) => {
            const both = typeof value === "number" && typeof full[n] === "number";
            const step = both ? full[n] - value : order(String(full[n]), String(value));
            sorted += 1;
            if ((up ? step : -step) > 0) wrong.push([table.closest("section").id, head.textContent, full[n], value]);
          });
        });
      }
      button.click();
      if (head.getAttribute("aria-sort") !== "none") wrong.push(["not reset", head.textContent]);
      if (rows().some((body, place) => body.some((row, n) => row !== before[place][n])))
        wrong.push(["order", head.textContent]);
    });
  }
  return { wrong: wrong.slice(0, 10), sorted, problems };
}"""


def test_every_column_of_every_table_sorts_both_ways_and_back(see):
    found = see(SORTED)
    assert found["wrong"] == []
    assert found["problems"] == []
    assert found["sorted"] > 1000


TRACED = """() => {
  const { data, resolve } = heterobench;
  const lost = [], cells = [];
  for (const cell of document.querySelectorAll("table.numbers td")) {
    const button = cell.querySelector("button.value");
    const table = cell.closest("section.block").id;
    if (!button) {
      if (cell.dataset.value !== undefined)
        lost.push([table, cell.closest("tr").cells[0].textContent, cell.textContent]);
      continue;
    }
    const sources = resolve(button);
    cells.push({
      table, row: cell.closest("tr").cells[0].textContent, value: cell.dataset.value, mean: sources.length === 1,
      marked: cell.querySelector(".mark")?.textContent || "", shown: button.textContent,
      sources: sources.map((s) => [s.scenario, s.arm, s.metric ? s.metric[0] : "",
        s.runs.map((r) => [r.seed, r.state, r.id, r.revision, r.changes, r.value ?? null])]),
    });
  }
  return { lost: lost.slice(0, 20), cells };
}"""


def test_every_number_leads_to_its_runs(data, tmp_path):
    """Every run of every cell is one of the ledger, and the runs of a mean have that mean."""
    found = browse(outputs.report_file(data.benchmark), WIDTHS["desk"], TRACED, tmp_path)
    assert found["lost"] == []
    known = data.runs
    means = 0
    for cell in found["cells"]:
        assert cell["sources"], cell
        for scenario, arm, _, runs in cell["sources"]:
            assert [seed for seed, *_ in runs] == list(data.benchmark.seeds)
            for seed, state, run, revision, changes, _ in runs:
                row = known[scenario, arm, seed]
                assert (state, run, revision) == (row["status"], row["run_id"], row["revision"])
                assert changes == {True: "+", False: "", None: "?"}[row["dirty"]]
        if cell["table"] == "table-accuracy":
            source = Source(cell["sources"][0][0], cell["sources"][0][1], "validation", "test_accuracy")
            expected = [100 * data.values[source].get(seed, math.nan) for seed in data.benchmark.seeds]
            values = [math.nan if value is None else value for *_, value in cell["sources"][0][3]]
            assert values == pytest.approx(expected, rel=1e-4, nan_ok=True)
        if cell["table"] in ("table-accuracy", "table-clients", "table-calibration", "table-coherence"):
            values = [value for *_, value in cell["sources"][0][3] if value is not None]
            if cell["value"] is not None:
                assert float(cell["value"]) == pytest.approx(sum(values) / len(values), rel=1e-4)
                means += 1
    assert means > 300


def test_the_page_stays_small(data):
    assert outputs.report_file(data.benchmark).stat().st_size < 3e6


OPENED = """() => {
  const dialog = document.getElementById("trace");
  const number = (name) => [...document.querySelectorAll("#table-accuracy tbody tr")]
    .find((tr) => tr.cells[0].textContent === name).cells[2].querySelector("button");
  const button = number("SCAFFOLD");
  button.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
  const hint = button.title;
  button.focus();
  button.click();
  const box = dialog.getBoundingClientRect();
  const answer = {
    hint, open: dialog.open, text: dialog.innerText,
    links: [...dialog.querySelectorAll("a")].map((a) => [a.textContent, a.getAttribute("href")]),
    rows: [...dialog.querySelectorAll("tbody tr")].map((tr) => [...tr.cells].map((td) => td.textContent)),
    inside: box.left >= 0 && box.top >= 0 && box.right <= innerWidth + 0.5 && box.bottom <= innerHeight + 0.5,
    fits: dialog.querySelector(".inside").scrollWidth <= dialog.querySelector(".inside").clientWidth,
  };
  dialog.querySelector(".close").click();
  answer.closed = !dialog.open;
  answer.back = document.activeElement === button;
  number("FedNova").click();
  answer.failed = dialog.innerText;
  answer.bold = dialog.querySelectorAll(".error b").length;
  dialog.click();
  answer.outside = !dialog.open;
  return { ...answer, problems };
}"""


def test_a_number_opens_its_runs_with_code_configuration_and_records(see):
    found = see(OPENED)
    assert found["open"]
    assert found["inside"]
    assert found["fits"]
    assert found["closed"]
    assert found["back"]
    assert found["outside"]
    assert [row[0] for row in found["rows"]] == ["0", "1", "2"]
    assert found["rows"][1][1:] == ["missing", "–", "–", "–"]
    assert [row[4] for row in found["rows"]] == ["open", "–", "open"]
    assert re.fullmatch(r"\d+\.?\d*", found["rows"][0][1])
    assert found["rows"][0][2] == "0001000200000000"
    assert found["rows"][0][3] == "abc12340"
    for words in ("SCAFFOLD · Dirichlet(0.1)", "2/3", "Hyper-parameters", "lr 0.1", "rounds 30", "MLP", "Records"):
        assert words in found["text"]
    links = [unquote(address) for text, address in found["links"] if text in ("open", "all these runs")]
    start = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning&searchFilter="
    assert links == [
        f"{start}tags.`heterobench.run_id` = '0001000200000000'",
        f"{start}tags.`heterobench.run_id` = '0001000200000002'",
        f"{start}tags.`heterobench.superseded` = 'false' and tags.scenario = '{SCENARIO}' and tags.arm = 'scaffold'",
    ]
    assert ["0001000200000000", "runs/digits.dirichlet-0.1.mlp.full/scaffold/seed-0/config.json"] in found["links"]
    assert "seed 1: missing" in found["hint"]
    assert "0001000200000000" in found["hint"]
    assert "Seed 0: RuntimeError: <b>out</b> of memory" in found["failed"]
    assert found["bold"] == 0
    assert found["problems"] == []


def test_without_a_tracker_the_search_is_there_to_be_copied(data, tmp_path):
    text = outputs.report_file(data.benchmark).read_text(encoding="utf-8")
    assert text.count('"experiment":"7"') == 1
    file = tmp_path / "untracked.html"
    file.write_text(text.replace('"experiment":"7"', '"experiment":null'), encoding="utf-8")
    found = browse(file, WIDTHS["desk"], OPENED, tmp_path)
    assert f"tags.scenario = '{SCENARIO}' and tags.arm = 'scaffold'" in found["text"]
    assert not [address for _, address in found["links"] if address.startswith("http")]
    assert found["problems"] == []


def test_links_to_the_records_lead_to_files(data):
    folder = outputs.report_file(data.benchmark).parent
    assert (folder / "runs" / SCENARIO / "scaffold" / "seed-0" / "config.json").is_file()


KEYS = """() => {
  const table = document.querySelector("#table-clients table");
  const stops = table.querySelectorAll('button.value[tabindex="0"]').length;
  const first = table.querySelector('button.value[tabindex="0"]');
  first.focus();
  const press = (key) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const place = () => {
    const td = document.activeElement.closest("td");
    return [td.closest("tr").rowIndex, td.cellIndex];
  };
  const path = [place()];
  for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowLeft"]) {
    press(key);
    path.push(place());
  }
  for (let n = 0; n < 20; n += 1) press("ArrowDown");
  return { stops, path, far: place()[0], again: table.querySelectorAll('button.value[tabindex="0"]').length,
    heads: [...table.querySelectorAll("thead button")].every((button) => button.tabIndex === 0) };
}"""


def test_the_keyboard_walks_over_a_table(see):
    found = see(KEYS)
    assert found["stops"] == found["again"] == 1
    row, column = found["path"][0]
    steps = [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (0, 0)]
    assert found["path"] == [[row + down, column + right] for down, right in steps]
    assert found["far"] > row + 15  # over the headings of sections
    assert found["heads"]


CONTENTS = """() => {
  const nav = document.getElementById("contents");
  const button = nav.querySelector("button");
  const narrow = getComputedStyle(button).display !== "none";
  const list = () => getComputedStyle(nav.querySelector("ul")).display !== "none";
  const answer = { narrow, at_first: list() };
  if (narrow) { button.click(); answer.opened = list(); answer.said = button.getAttribute("aria-expanded"); }
  answer.position = getComputedStyle(nav).position;
  answer.links = [...nav.querySelectorAll("a")].map((a) => a.hash.slice(1));
  answer.targets = answer.links.map((id) => document.getElementById(id) !== null);
  answer.how = [...document.querySelectorAll("section.part .how")]
    .map((a) => document.getElementById(a.hash.slice(1)) !== null);
  return answer;
}"""


def test_contents_stay_at_hand(see, request):
    found = see(CONTENTS)
    assert found["position"] == "sticky"
    assert all(found["targets"])
    assert all(found["how"])
    assert found["narrow"] == (request.node.callspec.params["see"] == "phone")
    assert found["at_first"] != found["narrow"]
    if found["narrow"]:
        assert found["opened"]
        assert found["said"] == "true"


def test_a_table_alone_sorts_as_well(data, tmp_path):
    for name in ("accuracy", "missing-runs"):
        found = browse(outputs.table_file(data.benchmark, name, "html"), WIDTHS["phone"], SORTED, tmp_path)
        assert found["wrong"] == []
        assert found["problems"] == []
