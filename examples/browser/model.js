// A TFLite file of keras_deepnets and the JSON beside it, run by LiteRT's web runtime (WebAssembly, XNNPACK).

import { evaluationView, rint, INTERPOLATIONS } from "./view.js";

const RUNTIME = new URL("node_modules/@litertjs/core/wasm/", import.meta.url).href;
const DTYPES = ["float32", "uint8"];

/** What went wrong in words for whoever uses the page. */
export class Problem extends Error {}

let runtime; // the promise of the one runtime of the page

/** Loads the runtime once: {litert, threads}. Threads need a page that is isolated from other origins (see serve.py). */
export function loadRuntime() {
  runtime ??= startRuntime().catch((error) => {
    runtime = undefined;
    throw error;
  });
  return runtime;
}

async function startRuntime() {
  let litert;
  try {
    litert = await import("@litertjs/core");
  } catch {
    throw new Problem("The runtime is not there. Run `npm ci` in examples/browser, then load the page again.");
  }
  try {
    const threads = globalThis.crossOriginIsolated && (await litert.supportsFeature("threads")) ? cores() : 1;
    await litert.loadLiteRt(RUNTIME, { threads: threads > 1 });
    return { litert, threads };
  } catch (error) {
    throw new Problem(`This browser cannot run WebAssembly as the runtime needs it: ${said(error)}`);
  }
}

/** Threads that pay: more than four share too little work. */
function cores() {
  return Math.min(navigator.hardwareConcurrency || 1, 4);
}

/**
 * Loads a model.
 *
 * @param {string} name of the file, for messages.
 * @param {Uint8Array} content of the .tflite file.
 * @param {string} json the text of the file beside it.
 * @return {Promise<Classifier>}
 */
export async function openModel(name, content, json) {
  const card = parsedCard(name, json);
  if (new TextDecoder("latin1").decode(content.subarray(4, 8)) !== "TFL3") {
    throw new Problem(`${name} is not a TFLite file.`);
  }
  // Browsers compute digests on https and localhost only.
  if (globalThis.crypto?.subtle && card.sha256 && (await sha256(content)) !== card.sha256) {
    throw new Problem(`${name} and ${name}.json do not belong together, or one is damaged: export the model again.`);
  }
  const { litert, threads } = await loadRuntime();
  let compiled;
  try {
    compiled = await litert.loadAndCompile(content, { accelerator: "wasm", cpuOptions: { numThreads: threads } });
    const classifier = new Classifier(litert, compiled, card, threads);
    // The first run sets things up, and shows whether every operator is there.
    await classifier.run(new Uint8Array(card.input.height * card.input.width * card.input.channels));
    return classifier;
  } catch (error) {
    compiled?.delete();
    throw error instanceof Problem ? error : new Problem(`${name} does not run here: ${said(error)}`);
  }
}

function parsedCard(name, json) {
  let card;
  try {
    card = JSON.parse(json);
  } catch {
    throw new Problem(`${name}.json is not JSON.`);
  }
  const { input, output, labels } = card ?? {};
  const sizes = [input?.height, input?.width];
  if (!sizes.every((size) => Number.isInteger(size) && size > 0) || !Array.isArray(labels) || !output?.dtype) {
    throw new Problem(`${name}.json is not what keras-deepnets writes beside a TFLite file.`);
  }
  for (const end of [input, output]) {
    if (!DTYPES.includes(end.dtype)) {
      throw new Problem(`${name} takes or gives ${end.dtype}, which the web runtime does not know: export it with --float-io.`);
    }
  }
  if (![1, 3].includes(input.channels) || !INTERPOLATIONS.includes(input.interpolation)) {
    throw new Problem(`${name}.json asks for ${input.channels} channels and ${input.interpolation}, unknown to this page.`);
  }
  if (input.shape?.[0] !== 1) {
    throw new Problem(`${name} takes ${input.shape?.[0] ?? "any number of"} images at once; export it for one, without --any-batch.`);
  }
  return card;
}

class Classifier {
  constructor(litert, compiled, card, threads) {
    Object.assign(this, { litert, compiled, card, threads });
  }

  /** An image (RGBA, as a canvas gives it) as the network sees it: uint8 [height, width, channels]. */
  view(image) {
    return evaluationView(image, this.card.input);
  }

  /** The probabilities of what `view` gave: Float32Array [classes]. */
  async run(view) {
    const { input, output } = this.card;
    const source = new this.litert.Tensor(quantised(view, input), [1, input.height, input.width, input.channels]);
    let results;
    try {
      results = await this.compiled.run([source]);
      return dequantised(await results[0].data(), output);
    } finally {
      source.delete();
      results?.forEach((result) => result.delete());
    }
  }

  /** Frees the memory outside JavaScript's. */
  delete() {
    this.compiled.delete();
  }
}

/** Pixels 0–255 as the model takes them. The network's own scaling is inside the file. */
function quantised(pixels, { dtype, quantization }) {
  if (dtype === "float32") return Float32Array.from(pixels);
  const { scale, zero_point: zero } = quantization ?? { scale: 1, zero_point: 0 };
  return Uint8Array.from(pixels, (value) => Math.min(Math.max(rint(value / scale + zero), 0), 255));
}

function dequantised(values, { quantization }) {
  if (!quantization) return Float32Array.from(values);
  return Float32Array.from(values, (value) => (value - quantization.zero_point) * quantization.scale);
}

async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * An image's pixels, turned upright as its EXIF data say, without its colour profile: as Python decodes it.
 *
 * @param {Blob} file anything that the browser can show.
 * @param {string} name of the file, for messages.
 * @return {Promise<ImageData>}
 */
export async function decodeImage(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } catch {
    throw new Problem(`${name} is not an image that this browser can read.`);
  } finally {
    bitmap?.close();
  }
}

/** The message of whatever was thrown; WebAssembly throws numbers too. */
export function said(error) {
  return String(error?.message ?? error).split("\n")[0] || "unknown error";
}
