// Text from data is set as textContent, never as mark-up.

const find = (id) => document.getElementById(id);
const percent = (value) => (value > 0.995 ? "> 99 %" : `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`);
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

// The networks: a card each, filled when there is an answer

const cards = new Map();

function addCard(network) {
  const card = find("card").content.cloneNode(true).querySelector("article");
  const facts = [];
  if (network.top1 !== null) facts.push(`${Math.round(100 * network.top1)} % of ${network.n.toLocaleString("en")} pictures right`);
  if (network.macs !== null) facts.push(`${(network.macs / 1e6).toFixed(1)} M MACs`);
  card.querySelector("h2").textContent = network.name;
  card.querySelector(".facts").textContent = facts.join(", ");
  card.setAttribute("aria-label", network.name);
  find("cards").append(card);
  cards.set(network.name, card);
}

function addClasses(networks) {
  const lists = new Map(); // networks with the same classes share a list
  for (const network of networks) {
    const names = network.classes.map((one) => one.name);
    const key = JSON.stringify(names);
    lists.set(key, { names, networks: [...(lists.get(key)?.networks ?? []), network.name] });
  }
  for (const { names, networks: which } of lists.values()) {
    const whose = lists.size === 1 ? "" : ` (${which.join(", ")})`;
    const details = document.createElement("details");
    const list = document.createElement("ul");
    list.append(...names.map((name) => element("li", name)));
    details.append(element("summary", `Whatever the picture shows, the answer is one of ${names.length} classes${whose}`));
    details.append(list);
    find("known").append(details);
  }
}

function fillCard(prediction) {
  const card = cards.get(prediction.network);
  const [best] = prediction.top;
  const verdict = card.querySelector(".verdict");
  verdict.textContent = prediction.sure ? best.name : `Not sure: perhaps ${best.name}`;
  verdict.classList.toggle("unsure", !prediction.sure);
  card.querySelector("ol").replaceChildren(...prediction.top.map(guessRow));
  card.querySelector(".time").textContent = `${prediction.milliseconds.toFixed(2)} ms`;
}

function guessRow(guess) {
  const row = document.createElement("li");
  const bar = element("span", "", "bar");
  bar.style.width = `${100 * guess.probability}%`;
  row.append(element("span", guess.name), element("span", percent(guess.probability), "share"), bar);
  return row;
}

function summary(predictions) {
  if (predictions.length === 1 && predictions[0].sure) return `It says ${predictions[0].top[0].name}.`;
  const sure = predictions.filter((one) => one.sure);
  if (sure.length === 0) return "No network is sure. It may be none of their classes.";
  const votes = new Map();
  for (const { top } of sure) votes.set(top[0].name, (votes.get(top[0].name) ?? 0) + 1);
  const [name, most] = [...votes].sort((a, b) => b[1] - a[1])[0];
  const others = predictions.length - sure.length;
  const said = `${most} of ${count(predictions.length, "network")} ${most === 1 ? "says" : "say"} ${name}.`;
  return others ? `${said} ${others} ${others === 1 ? "is" : "are"} not sure.` : said;
}

// A picture: shown, sent, answered

let running = new AbortController();

async function classify(file, name) {
  running.abort();
  running = new AbortController();
  find("problem").hidden = true;
  find("cards").classList.add("busy");
  find("summary").textContent = "Looking…";
  try {
    const picture = await ask(file, running.signal);
    show(file, name, picture);
    picture.predictions.forEach(fillCard);
    find("summary").textContent = summary(picture.predictions);
  } catch (error) {
    if (error.name === "AbortError") return; // another picture was chosen
    find("summary").textContent = "";
    find("problem").textContent = error.message;
    find("problem").hidden = false;
  }
  find("cards").classList.remove("busy");
}

async function ask(file, signal) {
  let response;
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    response = await fetch("/predict?network=all&pixels=true", { method: "POST", body: file, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer.pictures[0];
}

function show(file, name, picture) {
  const preview = find("preview");
  URL.revokeObjectURL(preview.src);
  preview.onerror = () => (preview.src = picture.pixels); // TIFF, which few browsers show
  preview.src = URL.createObjectURL(file);
  preview.alt = name;
  find("input").src = picture.pixels;
  find("changes").textContent = picture.changes.join(", ");
  find("shown").hidden = false;
  find("invitation").hidden = true;
}

// Ways to give a picture

function offer(files) {
  const file = [...files].find((one) => one.type.startsWith("image/")) ?? files[0];
  if (file) classify(file, file.name || "The given picture");
}

for (const input of [find("file"), find("camera")]) {
  input.addEventListener("change", () => {
    offer(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
}
find("choose").addEventListener("click", () => find("file").click());
find("photograph").addEventListener("click", photograph);
document.addEventListener("paste", (event) => offer(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) find("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  offer(event.dataTransfer.files);
});

const viewfinder = find("viewfinder");
const video = viewfinder.querySelector("video");

async function photograph() {
  let stream = null;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    find("camera").click(); // no camera here, or not allowed to a page without https: a phone offers its own
    return;
  }
  video.srcObject = stream;
  viewfinder.showModal();
  viewfinder.addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
}

find("cancel").addEventListener("click", () => viewfinder.close());
find("shoot").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((photo) => classify(photo, "The photo"), "image/png");
  viewfinder.close();
});

function addExample(example) {
  const button = document.createElement("button");
  const image = document.createElement("img");
  const item = document.createElement("li");
  image.src = example.url;
  image.alt = "";
  button.type = "button";
  button.append(image, element("span", example.name));
  button.addEventListener("click", async () => classify(await (await fetch(example.url)).blob(), example.name));
  item.append(button);
  find("examples").querySelector("ul").append(item);
}

const { networks } = await (await fetch("/networks")).json();
networks.forEach(addCard);
find("summary").textContent = `${count(networks.length, "network")}, and no picture yet.`;
addClasses(networks);
const { examples } = await (await fetch("/examples")).json();
examples.forEach(addExample);
find("examples").hidden = examples.length === 0;
