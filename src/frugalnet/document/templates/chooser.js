// The reader's budget: names the best network within it; rows and points of the others are grey.
const chooser = document.getElementById("chooser");
const unfit = new Map(); // by network, why

function choose() {
  const { networks, figures, limits } = JSON.parse(chooser.querySelector("script").textContent);
  const fields = [...chooser.querySelectorAll("input")];
  const wrong = fields.find((field) => !field.validity.valid);
  const set = limits
    .map((limit, i) => ({ ...limit, most: fields[i].valueAsNumber })) // NaN: no limit
    .filter((limit, i) => fields[i].validity.valid && limit.most >= 0);
  unfit.clear();
  networks.forEach((name, i) => {
    if (set.some(({ costs, most }) => costs[i] > most)) unfit.set(name, "over the limit");
    else if (set.some(({ costs }) => costs[i] === null)) unfit.set(name, "not measured");
  });
  chooser.querySelector("output").textContent = wrong ? `${wrong.name}: ${wrong.validationMessage}` : answer(networks, figures, set);
  for (const head of document.querySelectorAll("th.network")) {
    const why = unfit.get(head.querySelector("span").textContent);
    head.parentElement.classList.toggle("unfit", why !== undefined);
    head.dataset.why = why ?? "";
  }
}

function answer(networks, figures, set) {
  const best = networks.findIndex((name) => !unfit.has(name));
  const fit = networks.length - unfit.size;
  const those = fit === networks.length ? `all ${fit} networks` : `the ${fit} of ${networks.length} networks that fit`;
  if (fit > 1) return `${networks[best]} is the most accurate of ${those}: ${figures[best]}.`;
  if (fit) return `Only ${networks[best]} fits: ${figures[best]}.`;
  const known = networks.map((_, i) => i).filter((i) => set.every(({ costs }) => costs[i] !== null));
  if (!known.length) return "No network is known to fit.";
  const excess = (i) => Math.max(...set.map(({ costs, most }) => costs[i] / most));
  const closest = known.reduce((best, i) => (excess(i) < excess(best) ? i : best));
  const over = set.filter(({ costs, most }) => costs[closest] > most).map(({ title, unit, costs }) => `${title} ${Number(costs[closest].toPrecision(4))} ${unit}`);
  return `No network fits. The closest is ${networks[closest]}: ${over.join(", ")}.`;
}

// A point is a trace with its network's name; the names at a chart's points are one trace.
function fade(traces) {
  for (const trace of traces) {
    if (unfit.has(trace.name)) trace.opacity = 0.15;
    if (trace.customdata) trace.textfont.color = trace.textfont.color.map((own, i) => (unfit.has(trace.customdata[i]) ? "rgba(128, 128, 128, .5)" : own));
  }
}

if (chooser) {
  chooser.addEventListener("input", choose);
  chooser.addEventListener("submit", (event) => event.preventDefault());
  choose();
}
