"use strict";

// The cards that answers are shown in. Texts are never taken for HTML: files and classes are called what they like.

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** <li>: a picture, its file's name, and its likeliest classes, `answers` [{name, probability}], the likeliest first. */
function answerCard(fileName, picture, answers) {
  picture.classList.add("picture");
  picture.classList.toggle("tiny", Math.max(picture.width, picture.height) < 128);
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", fileName);
  const rows = answers.map(({ name, probability }) => {
    const bar = element("div", "bar");
    bar.style.setProperty("--share", probability);
    const share = element("data", "", `${(100 * probability).toFixed(1)} %`);
    share.value = probability;
    return element("li", "row", element("span", "name", name), share, bar);
  });
  const words = element("div", "", element("h2", "", fileName), element("ol", "", ...rows));
  return element("li", "card", picture, words);
}

/** <li>: a file, and why it has no answer. */
function failureCard(fileName, reason) {
  return element("li", "card bad", element("h2", "", fileName), element("p", "", reason));
}

/** The picture of at most `side` pixels, for a card. `source`: whatever a canvas can draw, of `width` and `height`. */
function thumbnail(source, width, height, side = 512) {
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}
