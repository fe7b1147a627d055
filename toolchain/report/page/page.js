
(() => {
  "use strict";
  const report = JSON.parse(document.getElementById("report").textContent);
  const cores = report.mapping.cores;
  const choices = document.getElementById("resources");
  if (!cores || !choices) return;
  const ends = [0.25, 0.5, 0.75, 0.9, 1.0];
  const cells = [...document.querySelectorAll("g.core")];
  const says = document.getElementById("map-says");

  const band = (fill) => {
    if (fill === null) return "unknown";
    const index = ends.findIndex((end) => fill <= end);
    return index < 0 ? "over" : `f${index}`;
  };
  const percent = (fill) => {
    if (fill === null) return "n/a";
    if (fill > 0 && fill < 0.01) return "<1 %";
    return `${fill < 1 ? Math.min(Math.floor(fill * 100 + 0.5), 99) : Math.ceil(fill * 100)} %`;
  };
  const fillOf = (which, at) => {
    const { used, limit } = cores.resources[which];
    return used[at] === null || !limit ? null : used[at] / limit;
  };
  const fullest = (at) => {
    let best = null;
    cores.resources.forEach((_, which) => {
      const fill = fillOf(which, at);
      if (fill !== null && (best === null || fill > fillOf(best, at))) best = which;
    });
    return best;
  };
  const sentence = (which, at) => {
    const where = `core ${cores.core[at]}, ${cores.layer[at]}`;
    if (which === null || fillOf(which, at) === null) return `${where}: n/a`;
    const { resource, unit, used, limit } = cores.resources[which];
    const [mine, whole] = [used[at], limit].map((n) => n.toLocaleString("en-US"));
    return `${where}: ${resource} ${mine} of ${whole} ${unit}, ${(100 * fillOf(which, at)).toFixed(1)}%`;
  };

  // Every cell takes the colour, the words and the figure of one resource; "fullest" is each core's scarcest.
  const show = (rule) => {
    const chosen = cores.resources.findIndex((resource) => resource.rule === rule);
    if (chosen < 0 && rule !== "fullest") return;
    let worst = null;
    for (const cell of cells) {
      const at = Number(cell.dataset.core);
      const which = chosen < 0 ? fullest(at) : chosen;
      const fill = which === null ? null : fillOf(which, at);
      cell.setAttribute("class", `core ${band(fill)}`);
      cell.querySelector("text.fill").textContent = percent(fill);
      cell.querySelector("title").textContent = sentence(which, at);
      if (which !== null) {
        cell.dataset.path = `/mapping/cores/resources/${which}/used/${at}`;
        cell.dataset.value = JSON.stringify(cores.resources[which].used[at]);
      }
      if (fill !== null && (worst === null || fill > worst.fill)) worst = { fill, which, at };
    }
    for (const input of choices.querySelectorAll("input")) input.checked = input.value === rule;
    const name = choices.querySelector("input:checked").parentElement.textContent.trim();
    says.textContent = `Coloured by ${name}.${worst === null ? "" : ` Fullest: ${sentence(worst.which, worst.at)}.`}`;
  };

  // report.html#cores=R02 opens with that resource.
  const fromAddress = () => show(/^#cores=(\w+)$/.exec(location.hash)?.[1] ?? "fullest");
  choices.addEventListener("change", (event) => show(event.target.value));
  addEventListener("hashchange", fromAddress);
  fromAddress();
})();
