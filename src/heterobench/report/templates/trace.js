// A number leads to its runs: a dialog with seeds, values, identities, code and configuration, and links to MLflow.
{
  const data = JSON.parse(document.getElementById("traces").textContent);
  const dialog = document.getElementById("trace");
  const inside = dialog.querySelector(".inside");

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  };
  const link = (text, href, attributes = {}) => element("a", { href, ...attributes }, text);
  const away = { target: "_blank", rel: "noopener" };

  // What stands behind a cell: one entry for each of its sources.
  const resolve = (button) =>
    data.makings[button.dataset.of].map((place) => {
      const [scenario, arm, selection, metric, values] = data.sources[place];
      const pair = `${scenario} ${arm}`;
      const [name, title, ...about] = data.scenarios[scenario];
      return {
        scenario: name, scenarioTitle: title, about, arm: data.arms[arm][0], armTitle: data.arms[arm][1],
        selection: data.selections[selection] || "", metric: data.metrics[metric],
        settings: data.settings[pair],
        runs: data.runs[pair].map(([state, id, revision, dirty, error], index) => ({
          seed: data.seeds[index], state: data.states[state], id, revision: data.revisions[revision],
          changes: dirty === null ? "?" : dirty ? "+" : "", error: error || "", value: values ? values[index] : undefined,
        })),
      };
    });

  const search = (text) =>
    data.mlflow.experiment === null
      ? null
      : `${data.mlflow.server}/#/experiments/${data.mlflow.experiment}/runs?workflowType=machine_learning` +
        `&searchFilter=${encodeURIComponent(text)}`;
  const ofRun = (run) => `tags.\`${data.mlflow.tag}\` = '${run.id}'`;
  const ofAll = (source) => `${data.mlflow.current} and tags.scenario = '${source.scenario}' and tags.arm = '${source.arm}'`;
  const folder = (source, seed) => `runs/${source.scenario}/${source.arm}/seed-${seed}`;
  const code = (run) => (run.revision ? run.revision.slice(0, 8) + run.changes : "not known");
  const uncommitted = { "+": ", with uncommitted changes", "?": ", not known whether with uncommitted changes", "": "" };
  const shown = (run) => {
    if (run.value !== undefined && run.value !== null) return String(run.value).replace("-", "−");
    if (run.state !== "finished") return run.state;
    return run.value === null ? "no value" : run.state;
  };

  const runsTable = (source) => {
    const unit = source.metric && source.metric[1] ? ` (${source.metric[1]})` : "";
    const head = ["Seed", source.metric ? `Value${unit}` : "Status", "Run", "Code", "MLflow"];
    const rows = source.runs.map((run) =>
      element("tr", { class: run.state },
        element("td", {}, String(run.seed)),
        element("td", {}, shown(run)),
        element("td", {}, run.state === "missing" ? "–" :
          link(run.id || "record", `${folder(source, run.seed)}/config.json`, { title: `${data.folder.replace(/runs$/, "")}${folder(source, run.seed)}/config.json` })),
        element("td", { title: run.revision ? run.revision + uncommitted[run.changes] : "" }, run.state === "missing" ? "–" : code(run)),
        element("td", {}, run.id && search("") !== null ? link("open", search(ofRun(run)), away) : "–"),
      ));
    return element("table", { class: "runs" },
      element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...rows));
  };

  const settings = (source) => {
    const { hyperparameters = {}, tuned = [], budget = {}, algorithm } = source.settings;
    const text = (values) => Object.entries(values).map(([key, value]) =>
      `${key.replaceAll("_", " ")} ${JSON.stringify(value).replaceAll('"', "")}${tuned.includes(key) ? " (tuned)" : ""}`).join(", ");
    const lines = [];
    if (algorithm) lines.push(["Algorithm", algorithm], ["Hyper-parameters", text(hyperparameters) || "none"], ["Budget", text(budget)]);
    lines.push(["Scenario", source.about.join(" · ")], ["Records", `${data.folder}/${source.scenario}/${source.arm}/seed-*/`]);
    if (search("") === null) lines.push(["Search in MLflow", ofAll(source)]);
    return element("dl", {}, ...lines.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]),
      ...(search("") === null ? [] : [element("dt", {}, "MLflow"), element("dd", {}, link("all these runs", search(ofAll(source)), away))]));
  };

  const block = (source) => {
    const errors = source.runs.filter((run) => run.error).map((run) => element("p", { class: "error" }, `Seed ${run.seed}: ${run.error}`));
    return [runsTable(source), ...errors, settings(source)];
  };

  const summary = (source) => `${source.armTitle} · ${source.scenarioTitle}`;
  const what = (source) => [source.metric ? source.metric[0] : "Runs", source.selection].filter(Boolean).join(", ");

  const open = (button) => {
    const sources = resolve(button);
    const value = [...button.closest("td").children].map((child) => child.textContent).filter(Boolean).join(" ");
    const title = dialog.querySelector("h2");
    const arms = new Set(sources.map((source) => source.armTitle));
    title.textContent = sources.length === 1 ? summary(sources[0]) : [...arms].slice(0, 3).join(", ") + (arms.size > 3 ? ", …" : "");
    const kinds = new Set(sources.map(what));
    inside.replaceChildren(
      element("p", { class: "shown" }, element("b", {}, value), ` ${kinds.size === 1 ? [...kinds][0] : ""}`));
    if (sources.length === 1) inside.append(...block(sources[0]));
    else for (const source of sources) {
      const attributes = sources.length <= 2 ? { open: "" } : {};
      const name = kinds.size === 1 ? summary(source) : `${summary(source)}: ${what(source)}`;
      inside.append(element("details", attributes, element("summary", {}, name), ...block(source)));
    }
    dialog.showModal();
    place(button);
    inside.scrollTop = 0;
  };

  // Beside the number where there is room; a small screen has the dialog at its bottom (see the style sheet).
  const place = (button) => {
    dialog.style.left = dialog.style.top = "";
    if (matchMedia("(max-width: 40rem)").matches) return;
    const at = button.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = dialog;
    const below = at.bottom + 8;
    const top = below + height <= innerHeight - 8 ? below : at.top - height - 8;
    dialog.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
    dialog.style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
  };

  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  const hint = (button) => {
    if (button.title) return;
    const sources = resolve(button);
    const runs = sources.flatMap((source) => source.runs);
    const lines = sources.length === 1
      ? runs.map((run) => `seed ${run.seed}: ${shown(run)}  run ${run.id || "–"}  code ${code(run)}`)
      : [`${runs.filter((run) => run.state === "finished").length} of ${runs.length} runs`];
    button.title = [...lines, "Click for runs, configuration and MLflow."].join("\n");
  };

  // One stop of the Tab key for each table; the arrow keys go on from there.
  for (const table of document.querySelectorAll("table.numbers")) {
    const buttons = [...table.querySelectorAll("button.value")];
    if (!buttons.length) continue;
    buttons.forEach((button, index) => {
      button.tabIndex = index ? -1 : 0;
      button.setAttribute("aria-haspopup", "dialog");
    });
    const go = (button) => {
      table.querySelectorAll('button.value[tabindex="0"]').forEach((other) => (other.tabIndex = -1));
      button.tabIndex = 0;
      button.focus();
    };
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    table.addEventListener("keydown", (event) => {
      const button = event.target.closest("button.value");
      if (!button || !steps[event.key]) return;
      event.preventDefault();
      const [down, right] = steps[event.key];
      const rows = [...table.rows];
      let [row, column] = [button.closest("tr").rowIndex, button.closest("td").cellIndex];
      for (;;) {
        row += down;
        column += right;
        const cell = rows[row]?.cells[column];
        if (!cell && !(down && rows[row])) return;
        const next = cell?.querySelector("button.value");
        if (next) return go(next);
      }
    });
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.value[data-of]");
    if (button) open(button);
  });
  for (const kind of ["mouseover", "focusin"])
    document.addEventListener(kind, (event) => {
      const button = event.target.closest?.("button.value[data-of]");
      if (button) hint(button);
    });
  window.heterobench = { data, resolve };
}
