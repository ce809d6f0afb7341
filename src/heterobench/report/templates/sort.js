// A click on a column head sorts the rows of each group, best first; groups stay where they are.
for (const table of document.querySelectorAll("table.numbers")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const original = [...table.tBodies].map((body) => [...body.rows]);
  heads.forEach((head, index) => {
    const button = head.querySelector("button");
    if (!button) return;
    const down = head.dataset.best !== "low";
    const cycle = down ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    button.addEventListener("click", () => {
      const next = cycle[(cycle.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      heads.forEach((other) => other.querySelector("button") && other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      [...table.tBodies].forEach((body, place) => {
        const rows = [...original[place]];
        if (next !== "none" && !body.classList.contains("title")) {
          const value = (row) => row.cells[index].dataset.value;
          const sign = next === "ascending" ? 1 : -1;
          rows.sort((a, b) => {
            if (value(a) === undefined) return value(b) === undefined ? 0 : 1;
            return value(b) === undefined ? -1 : sign * (value(a) - value(b));
          });
        }
        body.append(...rows);
      });
    });
  });
}
