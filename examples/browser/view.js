// Resizes an image to cover the network's input, then crops the centre. The arithmetic is that of
// keras_deepnets.data.transforms.evaluation_view, kernel by kernel, because the scaling of a canvas differs between browsers.

const LUMA = [0.299, 0.587, 0.114]; // ITU-R BT.601

// Interpolation name -> radius, and weight as a function of distance. Both are in pixels of the coarser grid.
const KERNELS = {
  bilinear: [1, (x) => Math.max(0, 1 - x)],
  bicubic: [2, (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0)],
  mitchellcubic: [
    2,
    (x) =>
      x < 1
        ? ((7 / 6) * x - 2) * x * x + 8 / 9
        : x < 2
          ? (((-7 / 18) * x + 2) * x - 10 / 3) * x + 16 / 9
          : 0,
  ],
  lanczos3: [3, lanczos(3)],
  lanczos5: [5, lanczos(5)],
  gaussian: [1.5, (x) => (x < 1.5 ? Math.exp((-x * x) / (2 * 0.5 ** 2)) : 0)],
};
export const INTERPOLATIONS = [...Object.keys(KERNELS), "nearest", "area"];

function lanczos(radius) {
  return (x) => {
    if (x > radius) return 0;
    if (x < 1e-3) return 1;
    return (radius * Math.sin(Math.PI * x) * Math.sin((Math.PI * x) / radius)) / (Math.PI * Math.PI * x * x);
  };
}

/**
 * The evaluation view of an image: the input of the network.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} image RGBA from a canvas; alpha is dropped.
 * @param {{height: number, width: number, channels: number, crop_fraction: number, interpolation: string}} input
 *     the entry "input" of the model's JSON file.
 * @return {Uint8Array} [height, width, channels] in row-major order.
 */
export function evaluationView(image, input) {
  const { height, width, channels, crop_fraction: crop, interpolation } = input;
  if (!INTERPOLATIONS.includes(interpolation)) throw new Error(`unknown interpolation "${interpolation}"`);
  const pixels = colours(image.data, channels);
  if (image.height === height && image.width === width) return pixels;
  // Sizes and offsets are integers, rounded as in Python.
  const coverHeight = rint(height / crop);
  const coverWidth = rint(width / crop);
  const newHeight = Math.max(coverHeight, Math.floor((coverWidth * image.height) / image.width));
  const newWidth = Math.max(coverWidth, Math.floor((coverHeight * image.width) / image.height));
  const rows = weights(interpolation, image.height, newHeight, rint((newHeight - height) / 2), height);
  const columns = weights(interpolation, image.width, newWidth, rint((newWidth - width) / 2), width);
  return resample(pixels, image.width, channels, rows, columns);
}

/** Converts RGBA to RGB or grey. */
function colours(rgba, channels) {
  const count = rgba.length / 4;
  const pixels = new Uint8Array(count * channels);
  for (let i = 0; i < count; i++) {
    const red = rgba[4 * i];
    const green = rgba[4 * i + 1];
    const blue = rgba[4 * i + 2];
    if (channels === 3) {
      pixels[3 * i] = red;
      pixels[3 * i + 1] = green;
      pixels[3 * i + 2] = blue;
    } else {
      pixels[i] = rint(Math.fround(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue));
    }
  }
  return pixels;
}

/** For `count` output positions from `offset` on: the first input position used, and the weights from there. */
function weights(interpolation, oldSize, newSize, offset, count) {
  const step = oldSize / newSize;
  return Array.from({ length: count }, (_, position) => {
    const place = position + offset;
    if (interpolation === "nearest") {
      return { first: Math.min(Math.floor((place + 0.5) * step), oldSize - 1), weights: [1] };
    }
    if (interpolation === "area") {
      const [from, to] = [place * step, (place + 1) * step];
      return normalised(Math.floor(from), Math.min(Math.ceil(to), oldSize), (source) =>
        Math.min(source + 1, to) - Math.max(source, from),
      );
    }
    const [radius, kernel] = KERNELS[interpolation];
    const spread = Math.max(step, 1); // antialiasing when the image shrinks
    const centre = (place + 0.5) * step;
    const first = Math.max(Math.ceil(centre - radius * spread - 0.5), 0);
    const end = Math.min(Math.floor(centre + radius * spread - 0.5), oldSize - 1) + 1;
    return normalised(first, end, (source) => kernel(Math.abs(source + 0.5 - centre) / spread));
  });
}

function normalised(first, end, weight) {
  const values = Array.from({ length: end - first }, (_, i) => weight(first + i));
  const total = values.reduce((sum, value) => sum + value, 0);
  return { first, weights: values.map((value) => value / total) };
}

/** Resamples rows, then columns, with float32 in between. Computes only the rows and columns that the crop keeps. */
function resample(pixels, oldWidth, channels, rows, columns) {
  const stride = oldWidth * channels;
  const result = new Uint8Array(rows.length * columns.length * channels);
  const line = new Float32Array(stride);
  let out = 0;
  for (const row of rows) {
    line.fill(0);
    row.weights.forEach((weight, i) => {
      const begin = (row.first + i) * stride;
      for (let j = 0; j < stride; j++) line[j] += weight * pixels[begin + j];
    });
    for (const column of columns) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let i = 0; i < column.weights.length; i++) {
          sum += column.weights[i] * line[(column.first + i) * channels + channel];
        }
        result[out++] = Math.min(Math.max(rint(Math.fround(sum)), 0), 255);
      }
    }
  }
  return result;
}

/** Rounds to the nearest integer and halves to even, as Python and TensorFlow do. */
export function rint(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
}
