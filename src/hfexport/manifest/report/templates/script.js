"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const order = (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
      const compare = (a, b) => {
        const [left, right] = [Number(key(a)), Number(key(b))];
        return key(a) !== "" && key(b) !== "" && !Number.isNaN(left) && !Number.isNaN(right) ? left - right : order(a, b);
      };
      const rows = [...body.rows].sort(compare);
      body.append(...(descending ? rows.reverse() : rows));
    });
  }
}
for (const form of document.querySelectorAll(".filters")) {
  form.hidden = false;
  const [text, verdict] = form.querySelectorAll("input, select");
  const count = form.querySelector("output");
  const rows = [...document.querySelectorAll("table.sortable tbody tr")];
  const update = () => {
    for (const row of rows) {
      const matches = row.textContent.toLowerCase().includes(text.value.toLowerCase());
      row.hidden = !matches || (verdict.value !== "" && row.dataset.verdict !== verdict.value);
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
  };
  text.addEventListener("input", update);
  verdict.addEventListener("change", update);
  update();
}
if (navigator.clipboard) {
  for (const block of document.querySelectorAll("pre.load")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
    });
    block.before(button);
  }
}
