const dialog = one("dialog");
const showRun = (data, row, number) => {
  all(".runs tbody tr", dialog).forEach((line, i) => line.setAttribute("aria-selected", i === number));
  const layouts = row.layouts[number] ?? row.layouts[0], verdict = { 1: "yes", 0: "no" };
  const episodes = row.returns[number].map((value, i) => ({
    episode: i, return: value, success: verdict[row.successes[number][i]] ?? "–", layout: layouts[i],
  }));
  one(".run", dialog).textContent = `Episodes of seed ${row.runs[number][0]}`;
  one(".listed", dialog).textContent = episodes.length < row.episodes ?
    `The first ${episodes.length} of ${row.episodes} episodes; all are in the raw scores.` : `${episodes.length} episodes; dashed: their mean.`;
  draw(one(".episodes", dialog), { ...data.episode_chart, datasets: { episodes } });
  one(".answers", dialog).replaceChildren(...(row.answers?.[number] ?? []).map(answer => {
    const side = ["accepted", "rejected", "learned"].filter(kind => answer[kind] != null)
      .map(kind => element("div", [element("b", kind), answer[kind]], { className: kind }));
    return element("article", [element("h4", answer.prompt), element("div", side, { className: "side" })]);
  }));
};
const showRow = (data, number) => {
  const row = data.rows[number];
  one("#row-title").textContent = row.title;
  one(".facts", dialog).replaceChildren(...row.facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  one(".runs thead", dialog).replaceChildren(element("tr", ["seed", ...row.measures].map(name => element("th", name.replaceAll("_", " ")))));
  one(".runs tbody", dialog).replaceChildren(...row.runs.map(([seed, ...values], i) => {
    const open = element("button", `seed ${seed}`, { type: "button", onclick: () => showRun(data, row, i) });
    return element("tr", [element("th", open), ...values.map(value => element("td", value ?? "–"))]);
  }));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  showRun(data, row, 0);
};
const lines = all("#table tbody tr");
sortable(one("#table table"));
filtered(one(".filters"), lines);
start((data, key) => showRow(data, data.rows.findIndex(row => row.key === key)))
  .then(data => lines.forEach((line, i) => line.addEventListener("click", () => getSelection().toString() || showRow(data, i))));
