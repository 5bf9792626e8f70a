// Draws the table that dashboard/table.py sends. Every string is set as text; nothing is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 22, MARGIN = 5;

export default function ({ data, parentElement, setTriggerValue }) {
  const held = parentElement.querySelector(".hkd-root");
  const root = held ?? document.createElement("div");
  root.className = "hkd-root";
  const focused = (parentElement.activeElement ?? document.activeElement)?.dataset?.focus;
  const scrolled = root.querySelector(".scrolls")?.scrollLeft ?? 0;
  const explained = root.querySelector("details")?.open ?? false;
  const scrolls = element("div", "scrolls");
  scrolls.appendChild(drawn(data, setTriggerValue));
  const tools = element("div", "tools");
  tools.append(...explanations(data.columns, explained), ...(data.saves ? [save(data)] : []));
  root.replaceChildren(tools, scrolls);
  if (!held) parentElement.appendChild(root);
  scrolls.scrollLeft = scrolled;
  if (focused) [...root.querySelectorAll("[data-focus]")].find((e) => e.dataset.focus === focused)?.focus();
}

// What the columns mean, for those who have no mouse to hold over a head.
function explanations(columns, open) {
  const helped = columns.filter((column) => column.help);
  if (!helped.length) return [];
  const details = element("details");
  details.open = open;
  const summary = element("summary", "", "What the columns mean");
  summary.dataset.focus = "explanations";
  const list = element("dl");
  for (const column of helped) list.append(element("dt", "", column.label), element("dd", "", column.help));
  details.append(summary, list);
  return [details];
}

// The button that saves the table as JSON, in the form of dashboard/bundle/render.py's `plain_table`.
function save(data) {
  const made = element("button", "save", "JSON");
  made.type = "button";
  made.dataset.focus = "save";
  made.title = "Save this table as JSON";
  made.setAttribute("aria-label", `JSON: save the table “${data.caption}”`);
  made.onclick = () => {
    const a = element("a");
    a.href = URL.createObjectURL(new Blob([JSON.stringify(records(data), null, 1)], { type: "application/json" }));
    a.download = data.caption.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 80) + ".json";
    a.click();
    URL.revokeObjectURL(a.href);
  };
  return made;
}

function records(data) {
  return data.lines.map((line) => {
    const row = {};
    line.cells.forEach((cell, k) => {
      const head = data.columns[k].label || data.columns[k].name;
      row[head] = [cell.text || (cell.links ?? []).map((link) => link.text).join(", "), cell.small].filter(Boolean).join(" ");
      for (const name of ["value", "low", "high"]) if (cell[name] !== undefined) row[`${head} ${name}`] = cell[name];
    });
    return row;
  });
}

function drawn(data, send) {
  const table = element("table", data.columns.length > 6 ? "wide" : "");
  const caption = element("caption", "unseen", data.caption);
  const head = element("tr");
  for (const column of data.columns) head.appendChild(header(column, data, send));
  const thead = element("thead");
  thead.appendChild(head);
  const body = element("tbody");
  data.lines.forEach((line) => {
    const tr = element("tr", [line.quiet && "quiet", line.band % 2 && "band", line.marked && "marked"].filter(Boolean).join(" "));
    line.cells.forEach((cell, k) => tr.appendChild(filled(cell, data.columns[k], send)));
    body.appendChild(tr);
  });
  table.append(caption, thead, body);
  return table;
}

function header(column, data, send) {
  const th = element("th", column.align);
  th.scope = "col";
  if (column.help) th.title = column.help;
  const active = data.sort === column.name;
  if (!column.sortable) {
    th.textContent = column.label;
    return th;
  }
  if (active) th.setAttribute("aria-sort", data.descending ? "descending" : "ascending");
  const button = element("button", active ? "sorted" : "", column.label + (active ? (data.descending ? " ↓" : " ↑") : ""));
  button.type = "button";
  button.dataset.focus = "sort " + column.name;
  button.setAttribute("aria-label", `Sort by ${column.label}` + (column.help ? `: ${column.help}` : ""));
  button.onclick = () => send("sort", column.name);
  th.appendChild(button);
  return th;
}

function filled(cell, column, send) {
  const td = element("td", column.align);
  if (cell.title) td.title = cell.title;
  if (cell.shade !== undefined) td.style.setProperty("--shade", `${Math.round(45 * cell.shade)}%`);
  const box = element("div", "cell");
  const words = element("span", "words");
  if (cell.links) cell.links.forEach((link, k) => words.append(...(k ? [" "] : []), anchor(link, link.text)));
  else words.appendChild(element("span", "main", cell.text ?? ""));
  if (cell.chip) words.append(" ", element("span", "chip", cell.chip));
  if (cell.small) words.append(" ", element("span", "small", cell.small));
  if (cell.below) words.appendChild(element("div", "below", cell.below));
  box.appendChild(words);
  if (column.domain) box.appendChild(interval(cell, column));
  if (cell.press) box.appendChild(button(cell, send));
  td.appendChild(box);
  return td;
}

function anchor(link, text) {
  const a = element("a", "", text);
  a.href = link.href;
  a.dataset.focus = link.href;
  if (link.title) a.title = link.title;
  a.onclick = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    history.pushState({}, "", a.href); // one history entry; Streamlit then opens the page as if the user had clicked "forward"
    dispatchEvent(new PopStateEvent("popstate"));
  };
  return a;
}

function button(cell, send) {
  const made = element("button", "press" + (cell.pressed ? " on" : ""));
  made.type = "button";
  made.dataset.focus = "press " + cell.press;
  made.setAttribute("aria-pressed", cell.pressed ? "true" : "false");
  made.setAttribute("aria-label", cell.press_label);
  made.title = cell.press_label;
  const icon = svg("svg", { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true" });
  icon.appendChild(svg("path", { d: "M5 1.5h6l-1 4.5 2.5 2.5h-9L6 6z M8 8.5v6", class: "pin" }));
  made.appendChild(icon);
  made.onclick = () => send("press", cell.press);
  return made;
}

function interval(cell, column) {
  const [from, to] = column.domain;
  const x = (value) => MARGIN + (column.width - 2 * MARGIN) * Math.min(1, Math.max(0, (value - from) / (to - from || 1)));
  const mid = HEIGHT / 2;
  const out = svg("svg", { width: column.width, height: HEIGHT, class: "interval", "aria-hidden": "true" });
  for (const [at, kind] of [[column.reference, "reference"], [column.second, "reference second"]]) {
    if (at !== null && at !== undefined) {
      out.appendChild(svg("line", { x1: x(at), x2: x(at), y1: 0, y2: HEIGHT, class: kind }));
    }
  }
  if (cell.value === undefined) return out;
  if (cell.low !== undefined && cell.high !== undefined) {
    out.appendChild(svg("line", { x1: x(cell.low), x2: x(cell.high), y1: mid, y2: mid, class: "range" }));
    for (const end of [cell.low, cell.high]) {
      out.appendChild(svg("line", { x1: x(end), x2: x(end), y1: mid - 4, y2: mid + 4, class: "range" }));
    }
  }
  out.appendChild(svg("circle", { cx: x(cell.value), cy: mid, r: 4, class: "point" }));
  return out;
}

function element(name, classes = "", text = "") {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
