const dialog = one("dialog");
// What a run did: some episodes with their filmstrips, samples, or answers beside the stored ones.
const showDone = (data, { episodes = [], samples = [], answers = [] }) => {
  const values = [...samples, ...episodes.flatMap(({ which, step, series }) => Object.entries(series).flatMap(([channel, numbers]) =>
    numbers.map((value, i) => ({ episode: which, series: channel.split(" ")[0], channel, step: step[i], value }))))];
  one(".done", dialog).textContent = episodes.length ? "Its worst, its median and its best episode" : samples.length ? "Some of its actions" : answers.length ? "Its answers" : "";
  one(".films", dialog).replaceChildren(...episodes.flatMap(({ which, episode, step, film, ...own }) => !film.step ? [] : [
    element("h4", `${which}: episode ${episode}, return ${own.return.toPrecision(4)}, ${step.at(-1)} steps`), filmstrip(film)]));
  one(".steps", dialog).replaceChildren();
  if (values.length) draw(one(".steps", dialog), { ...data.drawings[samples.length ? "samples" : "steps"], datasets: { values } });
  one(".answers", dialog).replaceChildren(...answers.map(answer => {
    const side = ["accepted", "rejected", "learned"].map(kind => {
      const reward = kind === "learned" && answer.return != null ? `, reward ${answer.return.toPrecision(3)}` : "";
      return element("div", [element("b", kind + reward), answer[kind] ?? "–"], { className: kind });
    });
    return element("article", [element("h4", answer.prompt), element("div", side, { className: "side" })]);
  }));
};
const showRun = (data, row, number) => {
  all(".runs tbody tr", dialog).forEach((line, i) => line.setAttribute("aria-selected", i === number));
  const layouts = row.layouts[number] ?? row.layouts[0], verdict = { 1: "yes", 0: "no" }, [seed] = row.runs[number];
  const episodes = row.returns[number].map((value, i) => ({
    episode: i, return: value, success: verdict[row.successes[number][i]] ?? "–", layout: layouts[i],
  }));
  one(".run", dialog).textContent = `Episodes of seed ${seed}`;
  one(".listed", dialog).textContent = episodes.length < row.episodes ?
    `The first ${episodes.length} of ${row.episodes} episodes; all are in the raw scores.` : `${episodes.length} episodes; dashed: their mean.`;
  draw(one(".episodes", dialog), { ...data.drawings.episodes, datasets: { episodes } });
  const drawn = Object.keys(row.done), omitted = data.recorded.includes(row.key) && !row.done[seed];
  one(".omitted", dialog).textContent = omitted ?
    `To keep the page small, it shows what ${drawn.length} of these ${row.runs.length} runs did; beside the raw scores there is more.` : "";
  showDone(data, row.done[seed] ?? {});
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
