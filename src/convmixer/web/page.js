"use strict";

// Takes pictures that are dropped, pasted or chosen, and shows what is answered. classify.js, which each user of this
// page brings, defines `classifier`:
//   open()          resolves to lines about the network, when pictures can be classified
//   classify(file)  resolves to {picture, answers, explain}: a canvas or <img>; [{name, probability}], the likeliest
//                   first; and explain(answer), which resolves to a canvas of what spoke for it, or nothing
// Each rejects with an Error whose message is for the reader.

const drop = document.getElementById("drop");
const choose = document.getElementById("choose");
const files = document.getElementById("files");
const list = document.getElementById("answers");
const statusLine = document.getElementById("status");

function say(text, bad = false) {
  statusLine.textContent = text;
  statusLine.classList.toggle("bad", bad);
}

const opened = classifier.open().then(
  (about) => {
    document.getElementById("about").textContent = about;
    say("");
    return true;
  },
  (error) => {
    choose.disabled = true;
    say(error.message, true);
    return false;
  },
);

let wanted = 0;
let answered = 0;
let failed = 0;
let last = opened; // one after the other: each picture may take all the memory that there is

/** Answers to these files, in their order, above those that are there. */
function add(chosen) {
  const before = list.firstChild;
  wanted += chosen.length;
  for (const file of chosen)
    last = last.then(async () => {
      if (!(await opened)) return;
      say(`Looking at picture ${answered + failed + 1} of ${wanted} …`);
      list.insertBefore(await cardOf(file), before);
      if (answered + failed === wanted) say(`Answered: ${answered}.${failed ? ` Without an answer: ${failed}.` : ""}`);
    });
}

async function cardOf(file) {
  try {
    const { picture, answers, explain } = await classifier.classify(file);
    answered += 1;
    return answerCard(file.name, picture, answers, explain);
  } catch (error) {
    failed += 1;
    return failureCard(file.name, error.message);
  }
}

choose.addEventListener("click", () => files.click());
files.addEventListener("change", () => {
  add([...files.files]);
  files.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => add([...event.clipboardData.files]));

// The whole page takes what is dropped: beside the frame the browser would leave the page to show the file.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
