"use strict";

// The cards that answers are shown in. Texts are never taken for HTML: files and classes are called what they like.

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** <li>: a picture, its file's name, and its likeliest classes, `answers` [{name, probability}], the likeliest first.
 * `explain`, where there is one: answer -> a promise of the picture of what spoke for it. */
function answerCard(fileName, picture, answers, explain) {
  dressed(picture, fileName);
  const rows = answers.map(({ name, probability }) => {
    const bar = element("div", "bar");
    bar.style.setProperty("--share", probability);
    const share = element("data", "", `${(100 * probability).toFixed(1)} %`);
    share.value = probability;
    return element("li", "row", element("span", "name", name), share, bar);
  });
  const words = element("div", "", element("h2", "", fileName), element("ol", "", ...rows));
  if (!explain) return element("li", "card", picture, words);
  const button = explainButton(fileName, picture, answers[0], explain);
  return element("li", "card", element("div", "seen", picture, button), words);
}

/** <button>: shows what spoke for an answer in the place of the picture, and the picture again. */
function explainButton(fileName, picture, answer, explain) {
  const button = element("button", "quiet", `What spoke for ${answer.name}`);
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  let map = null;
  button.addEventListener("click", async () => {
    const shows = button.getAttribute("aria-pressed") === "false";
    if (map === null) {
      button.disabled = true;
      try {
        map = dressed(await explain(answer), `${fileName}: what spoke for ${answer.name}`);
      } catch (error) {
        button.replaceWith(element("p", "bad", error.message));
        return;
      }
      button.disabled = false;
      button.focus();
    }
    (shows ? picture : map).replaceWith(shows ? map : picture);
    button.setAttribute("aria-pressed", String(shows));
  });
  return button;
}

/** The canvas or <img> as a card shows it, with a text for those who do not see it. */
function dressed(picture, text) {
  picture.classList.add("picture");
  picture.classList.toggle("tiny", Math.max(picture.width, picture.height) < 128);
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", text);
  return picture;
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
