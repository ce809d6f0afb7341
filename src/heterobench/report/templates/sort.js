// A click on a column head sorts the rows of each group, best first; groups stay where they are.
for (const table of document.querySelectorAll("table.numbers")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const original = [...table.tBodies].map((body) => [...body.rows]);
  const words = (cell) => (cell.querySelector(".value") || cell).textContent.trim();
  const order = new Intl.Collator("en", { numeric: true }).compare;
  heads.forEach((head, index) => {
    const button = head.querySelector("button");
    if (!button) return;
    const up = head.dataset.best === "low" || "words" in head.dataset;
    const cycle = up ? ["ascending", "descending", "none"] : ["descending", "ascending", "none"];
    const key = (row) => {
      const cell = row.cells[index];
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      return words(cell) === "–" ? undefined : words(cell);
    };
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : order(String(a), String(b)));
    button.addEventListener("click", () => {
      const next = cycle[(cycle.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      heads.forEach((other) => other.querySelector("button") && other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      [...table.tBodies].forEach((body, place) => {
        const rows = [...original[place]];
        if (next !== "none" && !body.classList.contains("title")) {
          const keys = new Map(rows.map((row) => [row, key(row)]));
          const sign = next === "ascending" ? 1 : -1;
          rows.sort((a, b) => {
            const [x, y] = [keys.get(a), keys.get(b)];
            if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
            return sign * compare(x, y);
          });
        }
        body.append(...rows);
      });
    });
  });
}
