"use strict";

// Asks the server that this page came from. See page.js for what a classifier is.

let about;
let token = "";

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    token = prompt("This server asks for a token:") ?? "";
    if (token) return ask(path, options); // asked again where it is a wrong one
  }
  const { error } = await response.json().catch(() => ({}));
  throw new Error(sentence(error ?? `the server answers with ${response.status}`));
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

const classifier = {
  async open() {
    about = await (await ask("model")).json();
    const names = about.classes;
    const some = names.length <= 12 ? `: ${names.join(", ")}` : "";
    return `${about.architecture ?? "The network"} knows ${names.length} classes${some}.\nPictures go to this server, which keeps none.`;
  },

  async classify(file) {
    const [found] = (await (await ask("predict", { method: "POST", body: file })).json()).predictions;
    const { blob, orientation } = await withoutOrientation(file);
    const picture = await shown(blob, about.preprocessing.exif ? orientation : 1);
    const explain = async ({ index }) => {
      const response = await ask(`explain?index=${index}`, { method: "POST", body: file });
      const map = await createImageBitmap(await response.blob());
      return thumbnail(map, map.width, map.height);
    };
    return { picture, answers: found.topk, explain: about.explains ? explain : null };
  },
};

/** A canvas with the picture, or a small empty one where the browser does not know a format that the server reads. */
async function shown(blob, orientation) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    return document.createElement("canvas");
  }
  const { width, height } = bitmap;
  const turned = orientation < 5 ? [width, height] : [height, width];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = turned;
  const context = canvas.getContext("2d");
  context.setTransform(...UPRIGHT[orientation](width, height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return thumbnail(canvas, ...turned);
}
