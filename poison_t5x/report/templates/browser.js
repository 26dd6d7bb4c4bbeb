"use strict";
// One table to look through: filters, search, order and pages. Cells are set as text alone.
function browse(root) {
  const data = JSON.parse(document.getElementById(root.id + "-data").textContent);
  const body = root.querySelector("tbody");
  const heads = [...root.querySelectorAll("thead th")];
  const controls = root.querySelector(".controls");
  const pager = root.querySelector(".pager");
  const status = root.querySelector("[role=status]");
  const perPage = Number(root.dataset.perPage);
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const chosen = new Map();
  let page = 0, order = null, matches = data.rows;

  const plain = (column, value) => {
    if (value === null) return "";
    if (column.kind === "choice") return column.values[value];
    return column.kind === "marked" ? data.texts[value].join("") : String(value);
  };
  const haystacks = data.rows.map(() => null);
  const haystack = (row, place) => haystacks[place] ??=
    row.map((value, n) => plain(data.columns[n], value)).join("\n").toLowerCase();

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function cell(column, value, first) {
    const made = element(first ? "th" : "td");
    if (first) made.scope = "row";
    if (column.kind === "number") {
      made.className = "number";
      made.textContent = value === null ? "–" : value;
    } else if (column.kind === "id") {
      made.className = "id";
      made.textContent = value;
    } else if (column.kind === "marked") {
      made.className = "long";
      made.dir = "auto";
      data.texts[value].forEach((text, n) => made.append(n % 2 ? element("mark", text) : text));
      if (!made.textContent) made.textContent = "(empty)";
    } else {
      const text = plain(column, value) || "–";
      made.dir = "auto";
      if (column.styles && column.styles[value]) made.className = column.styles[value];
      if (column.marks && column.marks[value]) {
        const sign = element("span", column.marks[value] + " ");
        sign.setAttribute("aria-hidden", "true");
        made.append(sign);
      }
      // A long name may go on in the next line after each of its underscores.
      text.split(/(?<=_)/).forEach((part, n) => made.append(...(n ? [element("wbr")] : []), part));
    }
    return made;
  }

  function compare(a, b) {
    const column = data.columns[order.place];
    const x = a[order.place], y = b[order.place];
    if (x === null || y === null) return (x === null) - (y === null);
    const number = column.kind === "number" || column.kind === "choice";
    const sign = number ? x - y : collator.compare(plain(column, x), plain(column, y));
    return order.down ? -sign : sign;
  }

  function select() {
    const words = root.querySelector("input").value.toLowerCase().trim();
    matches = data.rows.filter((row, place) => {
      for (const [n, values] of chosen) if (!values.has(row[n])) return false;
      return !words || haystack(row, place).includes(words);
    });
    if (order) matches.sort(compare);
    page = 0;
    show();
  }

  function show() {
    const start = page * perPage, shown = matches.slice(start, start + perPage);
    body.replaceChildren(...shown.map((row) => {
      const line = element("tr");
      line.append(...row.map((value, n) => cell(data.columns[n], value, n === 0)));
      return line;
    }));
    const count = matches.length.toLocaleString("en");
    status.textContent = matches.length
      ? `${start + 1}–${start + shown.length} of ${count} ${root.dataset.what}` : "None.";
    const [back, next] = pager.querySelectorAll("button");
    back.disabled = page === 0;
    next.disabled = start + perPage >= matches.length;
  }

  function addFilter(column, n) {
    const label = element("label", column.name + " ");
    const list = element("select");
    list.append(new Option("all", ""));
    column.values.forEach((value, place) => {
      const within = (column.within && column.within[place]) || [];
      const also = within.map((other) => column.values[other]).join(", ");
      list.append(new Option(also ? `${value} (with ${also})` : value || "–", place));
    });
    list.addEventListener("change", () => {
      chosen.delete(n);
      const place = Number(list.value);
      const within = (column.within && column.within[place]) || [];
      if (list.value !== "") chosen.set(n, new Set([place, ...within]));
      select();
    });
    label.append(list);
    controls.insertBefore(label, controls.lastElementChild);
  }

  function addOrder(head, place) {
    const button = element("button", head.textContent, "order");
    button.type = "button";
    button.addEventListener("click", () => {
      const down = order !== null && order.place === place && !order.down;
      order = { place, down };
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      select();
    });
    head.replaceChildren(button);
  }

  function turn(by) {
    page += by;
    show();
    root.querySelector(".scroll").scrollTop = 0;
  }

  data.columns.forEach((column, n) => {
    if (column.kind === "choice" && column.values.length > 1) addFilter(column, n);
  });
  heads.forEach(addOrder);
  root.querySelector("input").addEventListener("input", select);
  root.querySelector("[type=reset]").addEventListener("click", () => {
    controls.querySelectorAll("select, input").forEach((field) => { field.value = ""; });
    chosen.clear();
    order = null;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    select();
  });
  const [back, next] = pager.querySelectorAll("button");
  back.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  controls.hidden = pager.hidden = false;
  show();
}
document.querySelectorAll(".browser").forEach(browse);
