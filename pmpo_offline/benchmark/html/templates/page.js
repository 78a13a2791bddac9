"use strict";
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const unpack = async id => {
  const bytes = Uint8Array.from(atob(one("#" + id).textContent), c => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
// The text of an element is all that a page ever gets from data: never HTML.
const element = (name, text = "", attributes = {}) => {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...[text].flat());
  return made;
};
const ink = { labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
const config = {
  background: null, font: getComputedStyle(document.body).fontFamily, view: { stroke: null }, padding: 4,
  axisXQuantitative: { tickCount: 8 },
  axis: { ...ink, gridColor: "#8884", gridOpacity: 0.5, domainColor: "#888a", tickColor: "#888a" },
  legend: { ...ink, padding: 4, rowPadding: 3, symbolBaseFillColor: "currentColor", symbolBaseStrokeColor: "currentColor" }, title: { color: "currentColor" }, text: { color: "currentColor" },
};
const draw = async (place, spec, opened) => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const { view } = await vegaEmbed(place, { ...spec, autosize: { type: "fit-x", contains: "padding" } }, {
    config, renderer: "svg", ast: true, tooltip: { theme: dark ? "dark" : "light" },
    actions: { export: true, source: false, compiled: false, editor: false }, downloadFileName: document.title,
  });
  if (opened) view.addEventListener("click", (_, item) => item?.datum?.key && opened(item.datum.key));
  return view;
};
// A filmstrip: pictures of figures, which are lists [kind, width, x, y, x, y, …] with y up.
const vector = (name, attributes, ...parts) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...parts);
  return made;
};
const filmstrip = ({ step, frames, box: [left, low, right, high] }) => element("div", frames.map((figures, i) => element("figure", [
  vector("svg", { viewBox: `${left} ${-high} ${right - left} ${high - low}` }, vector("g", { transform: "scale(1 -1)" },
    ...figures.map(([kind, width, ...points]) => vector("polygon", { points, class: `figure ${kind}`, "stroke-width": width })))),
  element("figcaption", `step ${step[i]}`),
])), { className: "filmstrip" });
// A table whose header buttons sort it; dashes come last.
const sortable = table => all("thead th", table).forEach((head, column) => head.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "descending", sign = down ? 1 : -1;
  all("thead th", table).forEach(other => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "ascending" : "descending");
  const value = row => { const text = row.cells[column].textContent.trim(), number = parseFloat(text); return isNaN(number) || column === 0 ? text : number; };
  const rows = all("tbody tr", table).map(row => [value(row), row]).sort(([a], [b]) =>
    a === "–" ? 1 : b === "–" ? -1 : sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
  one("tbody", table).append(...rows.map(([, row]) => row));
}));
// A form that hides the rows, or articles, which do not match its inputs.
const filtered = (form, rows, more = () => {}) => {
  const apply = () => {
    const words = one("input[type=search]", form).value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = all("select[data-filter]", form).filter(select => select.value).map(select => [select.dataset.filter, select.value]);
    const hidden = all("input[data-role]:not(:checked)", form).map(box => box.dataset.role);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = hidden.some(role => row.classList.contains(role)) || !words.every(word => text.includes(word)) ||
        !chosen.every(([name, value]) => row.dataset[name] === value);
      shown += !row.hidden;
    }
    one("output", form).value = shown === rows.length ? `${shown}` : `${shown} of ${rows.length}`;
    more();
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  apply();
};
const start = async opened => {
  const data = JSON.parse(await unpack("data"));
  document.head.append(element("script", await unpack("vega"), { nonce: one("script[nonce]").nonce }));
  for (const place of all("[data-chart]")) await draw(place, data.charts[place.dataset.chart], opened && (key => opened(data, key)));
  document.documentElement.dataset.ready = "yes";
  return data;
};
