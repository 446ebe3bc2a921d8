// The user interface of the page. model.js runs the network; view.js prepares the image for it.

import { decodeImage, openModel, Problem, said } from "./model.js";

const MODELS = "models/"; // index.json in this folder lists the .tflite files
const MEASURED_RUNS = 20;
const MEASURED_MS = 5000;

const at = (id) => document.getElementById(id);
let classifier = null;
let image = null; // {name, url, pixels}
let probabilities = null;

// Tasks run one after another, in the order of the requests.
let turn = Promise.resolve();

function inTurn(what, task) {
  turn = turn.then(async () => {
    document.body.ariaBusy = "true";
    at("problem").hidden = true;
    at("problem").textContent = "";
    at("status").textContent = what;
    await painted();
    try {
      at("status").textContent = (await task()) ?? "";
    } catch (error) {
      at("status").textContent = "";
      at("problem").textContent = error instanceof Problem ? error.message : `Something went wrong: ${said(error)}`;
      at("problem").hidden = false;
      at("problem").scrollIntoView({ block: "nearest" });
      if (!(error instanceof Problem)) console.error(error);
    }
    document.body.ariaBusy = "false";
  });
  return turn;
}

/** Waits for a repaint. The network blocks the page while it runs, so the status line must be on screen before that. */
function painted() {
  return new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
    setTimeout(resolve, 100); // browsers do not paint pages in the background
  });
}

// --- the model ---

async function fetched(url) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new Problem(`${url} cannot be loaded: the server does not answer.`);
  }
  if (!response.ok) throw new Problem(`${url} cannot be loaded: the server says ${response.status} ${response.statusText}.`);
  return response;
}

async function useModel(name, read) {
  classifier?.delete();
  classifier = null;
  at("model-facts").textContent = "";
  at("result").hidden = true;
  const begin = performance.now();
  const { content, json } = await read();
  classifier = await openModel(name, content, json);
  const taken = performance.now() - begin;
  const { card, threads } = classifier;
  const { height, width, channels } = card.input;
  at("model-facts").textContent =
    `${card.name}, ${card.quantize ?? "float32"}, ${size(content.length)}: ${width} × ${height} pixels, ` +
    `${channels === 1 ? "grey" : "colour"}, ${card.labels.length.toLocaleString("en")} classes. ` +
    `Ready in ${milliseconds(taken)}, ${threads === 1 ? "1 thread" : `${threads} threads`}.`;
  at("top").max = card.labels.length;
  return image ? classify() : "Ready: choose an image.";
}

function listedModel(name) {
  return inTurn(`Loading ${name} …`, () =>
    useModel(name, async () => {
      const url = MODELS + encodeURIComponent(name);
      const [model, card] = await Promise.all([fetched(url), fetched(`${url}.json`)]);
      return { content: new Uint8Array(await model.arrayBuffer()), json: await card.text() };
    }),
  );
}

function chosenModel(files) {
  const model = files.find((file) => file.name.endsWith(".tflite"));
  const card = files.find((file) => file.name.endsWith(".json"));
  return inTurn("Loading the model …", async () => {
    if (!model || !card) {
      throw new Problem("Choose two files at once: the .tflite file and the .json file that was written with it.");
    }
    at("models").selectedIndex = -1;
    return useModel(model.name, async () => ({
      content: new Uint8Array(await model.arrayBuffer()),
      json: await card.text(),
    }));
  });
}

function start() {
  return inTurn("Looking for models …", async () => {
    const response = await fetch(`${MODELS}index.json`).catch(() => null);
    const names = response?.ok ? await response.json().catch(() => []) : [];
    if (names.length === 0) return "No models are listed: open a .tflite file and its .json.";
    at("models").replaceChildren(...names.map((name) => new Option(name, name)));
    at("listed").hidden = false;
    listedModel(names[0]);
  });
}

// --- the image ---

function useImage(name, read, sample = null) {
  for (const button of document.querySelectorAll("[data-sample]")) button.ariaPressed = String(button === sample);
  return inTurn(`Reading ${name} …`, async () => {
    at("result").hidden = true;
    if (image) URL.revokeObjectURL(image.url);
    image = null;
    const file = await read();
    image = { name, pixels: await decodeImage(file, name), url: URL.createObjectURL(file) };
    return classifier ? classify() : "The image is loaded: open a model.";
  });
}

function chosenSample(button) {
  const path = button.dataset.sample;
  return useImage(path.split("/").pop(), async () => (await fetched(path)).blob(), button);
}

// --- the result ---

async function classify() {
  const begin = performance.now();
  const view = classifier.view(image.pixels);
  const seen = performance.now();
  probabilities = await classifier.run(view);
  const done = performance.now();
  at("times").textContent = `Resizing and cropping ${milliseconds(seen - begin)}, network ${milliseconds(done - seen)}.`;
  showPictures(view);
  const [best] = showClasses();
  at("result").hidden = false;
  return `Most probable: ${classifier.card.labels[best]}, ${percent(probabilities[best])}.`;
}

function showPictures(view) {
  const { height, width, channels } = classifier.card.input;
  at("picture").src = image.url;
  at("picture").classList.toggle("small", image.pixels.width < 100);
  at("picture-name").textContent = `${image.name}, ${image.pixels.width} × ${image.pixels.height}`;
  const canvas = at("view");
  [canvas.width, canvas.height] = [width, height];
  canvas.classList.toggle("small", width < 100);
  const shown = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let channel = 0; channel < 3; channel++) shown.data[4 * i + channel] = view[i * channels + (channel % channels)];
    shown.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(shown, 0, 0);
  at("view-size").textContent = `what the network sees, ${width} × ${height}`;
}

/** Fills the table and returns the indices of its classes. */
function showClasses() {
  const { labels } = classifier.card;
  const count = Math.min(Math.max(Math.trunc(at("top").valueAsNumber) || 1, 1), labels.length);
  const order = Array.from(labels.keys()).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  const best = order.slice(0, count);
  at("classes").replaceChildren(...best.map((index) => classRow(labels[index], probabilities[index])));
  return best;
}

function classRow(label, probability) {
  const row = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = label;
  const number = row.insertCell();
  number.className = "number";
  const value = document.createElement("data");
  value.value = probability;
  value.textContent = percent(probability);
  number.append(value);
  const bar = row.insertCell(0);
  bar.className = "bar";
  bar.ariaHidden = "true";
  bar.append(document.createElement("div"));
  bar.firstChild.style.width = `${100 * probability}%`;
  row.prepend(name);
  return row;
}

function measure() {
  return inTurn("Measuring …", async () => {
    const view = classifier.view(image.pixels);
    const times = [];
    const begin = performance.now();
    while (times.length < MEASURED_RUNS && (times.length < 3 || performance.now() - begin < MEASURED_MS)) {
      const start = performance.now();
      await classifier.run(view);
      times.push(performance.now() - start);
    }
    times.sort((a, b) => a - b);
    const median = times[times.length >> 1];
    at("times").textContent = `Network: median of ${times.length} runs ${milliseconds(median)}, fastest ${milliseconds(times[0])}.`;
    at("times").dataset.median = median;
    return `Measured: ${milliseconds(median)} per image.`;
  });
}

// --- formatting ---

function milliseconds(value) {
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

function percent(value) {
  return `${(100 * value).toFixed(1)} %`;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

// --- events ---

function chosen(files) {
  const models = files.filter((file) => /\.(tflite|json)$/.test(file.name));
  if (models.length > 0) chosenModel(models);
  else if (files.length > 0) useImage(files[0].name, async () => files[0]);
}

for (const input of [at("model-files"), at("image-file")]) {
  input.addEventListener("change", () => {
    if (input.id === "image-file") chosen([...input.files]);
    else if (input.files.length > 0) chosenModel([...input.files]);
    input.value = ""; // so that choosing the same file again is a change
  });
}
at("models").addEventListener("change", () => listedModel(at("models").value));
at("top").addEventListener("change", () => showClasses());
at("measure").addEventListener("click", () => measure());
for (const button of document.querySelectorAll("[data-sample]")) {
  button.ariaPressed = "false";
  button.addEventListener("click", () => chosenSample(button));
}

let inside = 0; // number of nested elements that the dragging pointer is inside
addEventListener("dragenter", () => document.body.classList.toggle("dragging", ++inside > 0));
addEventListener("dragleave", () => document.body.classList.toggle("dragging", --inside > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("dragging");
  chosen([...event.dataTransfer.files]);
});

start();
