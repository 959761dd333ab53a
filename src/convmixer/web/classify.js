"use strict";

// Runs model.onnx of this folder in the browser, by ONNX Runtime's WebAssembly. The graph takes whole pictures, uint8
// [1, height, width, channels], and resizes, crops and normalises by itself.

const TOP = 5;
let runtime, session, names, record;

const classifier = {
  async open() {
    if (location.protocol === "file:")
      throw new Error(
        "Browsers load no network from a file. In this folder run: python -m http.server, then open http://localhost:8000",
      );
    try {
      runtime = await import("./ort/ort.wasm.bundle.min.mjs");
      runtime.env.wasm.proxy = true; // in a worker, so that the page stays alive
      const [model, answer] = await Promise.all([
        runtime.InferenceSession.create("model.onnx"),
        fetch("convmixer.json"),
      ]);
      session = model;
      ({ names, record } = await answer.json());
    } catch (error) {
      throw new Error(`The network could not be loaded: ${error.message ?? error}`);
    }
    const some = names.length <= 12 ? `: ${names.join(", ")}` : "";
    return `${record.arch} knows ${names.length} classes${some}.\nPictures stay on this device.`;
  },

  async classify(file) {
    const { pixels, width, height, picture } = await decoded(file, record.preprocessing);
    const channels = record.preprocessing.mean.length;
    const input = new runtime.Tensor("uint8", pixels, [1, height, width, channels]);
    let logits;
    try {
      ({ logits } = await session.run({ images: input }));
    } catch (error) {
      throw new Error(`The network failed on ${width} × ${height} pixels: ${error.message ?? error}`);
    }
    const likeliest = softmax(logits.data)
      .map((probability, index) => ({ name: names[index], probability }))
      .sort((one, other) => other.probability - one.probability);
    return { picture, answers: likeliest.slice(0, TOP) };
  },
};

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((one, other) => one + other);
  return powers.map((power) => power / sum);
}

/** Pixels as the network was trained on them: on white, without colour management, turned by EXIF if it was so. */
async function decoded(file, { exif, mean }) {
  const { blob, orientation } = await withoutOrientation(file);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("This is no picture that the browser can read.");
  }
  const turn = exif ? orientation : 1;
  const [width, height] = turn < 5 ? [bitmap.width, bitmap.height] : [bitmap.height, bitmap.width];
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { alpha: false, colorSpace: "srgb", willReadFrequently: true });
  let rgba;
  try {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.setTransform(...UPRIGHT[turn](bitmap.width, bitmap.height));
    context.drawImage(bitmap, 0, 0);
    rgba = context.getImageData(0, 0, width, height, { colorSpace: "srgb" }).data;
  } catch {
    throw new Error(`The browser cannot hold ${width} × ${height} pixels.`);
  } finally {
    bitmap.close();
  }
  const pixels = mean.length === 1 ? grey(rgba) : colour(rgba);
  return { pixels, width, height, picture: thumbnail(canvas, width, height) };
}

function colour(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

/** Luma by ITU-R 601 in Pillow's 16-bit fractions. */
function grey(rgba) {
  const levels = new Uint8Array(rgba.length / 4);
  for (let from = 0, to = 0; from < rgba.length; from += 4)
    levels[to++] = (19595 * rgba[from] + 38470 * rgba[from + 1] + 7471 * rgba[from + 2] + 0x8000) >> 16;
  return levels;
}
