"use strict";
(() => {
  const root = document.documentElement;
  const tools = document.getElementById("tools");
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

  // Light or dark: the reader's system decides until the button is used.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const theme = make("button", { type: "button", id: "theme" });
  const tell = () => { theme.textContent = isDark() ? "Light page" : "Dark page"; };
  const store = (value) => { try { localStorage.setItem("dinoidd-theme", value); } catch { /* a file */ } };
  const stored = () => { try { return localStorage.getItem("dinoidd-theme"); } catch { return null; } };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    tell();
  });
  system.addEventListener("change", tell);
  tell();

  // How much of the masks covers the images.
  if (document.querySelector(".picture")) {
    const label = make("label", { textContent: "Masks " });
    const range = make("input", { type: "range", id: "overlay", min: "0", max: "1", step: "0.05", value: "0.6" });
    range.addEventListener("input", () => root.style.setProperty("--overlay", range.value));
    label.append(range);
    tools.append(label);
  }
  tools.append(theme);

  // Tables sort by a click on a column's name: numbers from the largest, names from A.
  const valueOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/[<,]/g, ""));
    return Number.isNaN(number) ? text : text.startsWith("<") ? number / 2 : number;
  };
  const sort = (table, head, column, numeric) => {
    const was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : numeric;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const [x, y] = [valueOf(a, column), valueOf(b, column)];
      if (!numeric) return String(x).localeCompare(String(y));
      return (typeof x === "number" ? x : -1) - (typeof y === "number" ? y : -1);
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
    table.tBodies[0].append(...rows);
  };
  for (const table of document.querySelectorAll(".sortable table")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const numeric = head.classList.contains("number");
      if (!numeric && column > 0) return;
      const button = make("button", { type: "button", textContent: head.textContent });
      button.addEventListener("click", () => sort(table, head, column, numeric));
      head.replaceChildren(button);
    });
  }
  root.dataset.ready = "true";
})();
