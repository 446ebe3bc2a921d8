// Runs a TFLite file of keras_deepnets, described by its JSON file, with LiteRT's web runtime (WebAssembly, XNNPACK).

import { evaluationView, rint, INTERPOLATIONS } from "./view.js";

const RUNTIME = new URL("node_modules/@litertjs/core/wasm/", import.meta.url).href;
const DTYPES = ["float32", "uint8"];

/** An error whose message the page shows to its user. */
export class Problem extends Error {}

let runtime; // promise of the runtime, which the page loads once

/** Loads the runtime once and returns {litert, threads}. Threads need a page isolated from other origins (see serve.py). */
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
    throw new Problem("The runtime is not installed. Run `npm ci` in examples/browser, then reload the page.");
  }
  try {
    const threads = globalThis.crossOriginIsolated && (await litert.supportsFeature("threads")) ? cores() : 1;
    await litert.loadLiteRt(RUNTIME, { threads: threads > 1 });
    return { litert, threads };
  } catch (error) {
    throw new Problem(`This browser lacks WebAssembly features that the runtime needs: ${said(error)}`);
  }
}

/** Number of threads. More than four have too little work each. */
function cores() {
  return Math.min(navigator.hardwareConcurrency || 1, 4);
}

/**
 * Loads a model.
 *
 * @param {string} name name of the file, for messages.
 * @param {Uint8Array} content content of the .tflite file.
 * @param {string} json text of the JSON file that belongs to it.
 * @return {Promise<Classifier>}
 */
export async function openModel(name, content, json) {
  const card = parsedCard(name, json);
  if (new TextDecoder("latin1").decode(content.subarray(4, 8)) !== "TFL3") {
    throw new Problem(`${name} is not a TFLite file.`);
  }
  // Browsers compute digests only on https and localhost.
  if (globalThis.crypto?.subtle && card.sha256 && (await sha256(content)) !== card.sha256) {
    throw new Problem(`${name} and ${name}.json do not belong together, or one is damaged; export the model again.`);
  }
  const { litert, threads } = await loadRuntime();
  let compiled;
  try {
    compiled = await litert.loadAndCompile(content, { accelerator: "wasm", cpuOptions: { numThreads: threads } });
    const classifier = new Classifier(litert, compiled, card, threads);
    // The first run prepares the kernels and fails if an operator is missing.
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
    throw new Problem(`${name}.json is not a file that keras-deepnets writes for a TFLite model.`);
  }
  for (const end of [input, output]) {
    if (!DTYPES.includes(end.dtype)) {
      throw new Problem(`${name} has ${end.dtype} inputs or outputs, which the web runtime does not support; export it with --float-io.`);
    }
  }
  if (![1, 3].includes(input.channels) || !INTERPOLATIONS.includes(input.interpolation)) {
    throw new Problem(`${name}.json has ${input.channels} channels and ${input.interpolation} interpolation, which this page does not support.`);
  }
  if (input.shape?.[0] !== 1) {
    throw new Problem(`${name} takes ${input.shape?.[0] ?? "any number of"} images per call; export it for one, without --any-batch.`);
  }
  return card;
}

class Classifier {
  constructor(litert, compiled, card, threads) {
    Object.assign(this, { litert, compiled, card, threads });
  }

  /** The network's input for an RGBA image from a canvas: uint8 [height, width, channels]. */
  view(image) {
    return evaluationView(image, this.card.input);
  }

  /** The probabilities for a result of `view`: Float32Array [classes]. */
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

  /** Frees the WebAssembly memory, which JavaScript does not collect. */
  delete() {
    this.compiled.delete();
  }
}

/** Pixels 0–255 in the dtype of the model. The model file contains the network's own scaling. */
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
 * Decodes an image as the Python package does: EXIF orientation is applied, the colour profile is ignored.
 *
 * @param {Blob} file any image that the browser can show.
 * @param {string} name name of the file, for messages.
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

/** The message of a thrown value. WebAssembly also throws numbers. */
export function said(error) {
  return String(error?.message ?? error).split("\n")[0] || "unknown error";
}
