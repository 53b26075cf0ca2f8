// The elements of the view Read, and what an answer looks like in them.

import { MAX_S, MIN_S } from "./camera.js";
import { dropZone, element, errorBox, field, percent, progressBar, seconds } from "./components.js";

const LOW_CONFIDENCE = 0.5;
const MANY_WITHOUT_FACE = 0.1; // share of the frames
export const FORMATS = ["txt", "srt", "vtt", "json"];

export function buildInput(onFile) {
  const drop = dropZone({ label: "Drop a video of a face", hint: "or choose a file", accept: "video/*,.mkv,.avi", onFile });
  const preview = element("video", { class: "media is-mirrored", playsinline: true, autoplay: true, hidden: true, "aria-label": "Your camera" });
  preview.muted = true; // the attribute would count for a parsed page only
  const record = button("Record yourself", { "data-testid": "record" });
  const recordHint = element("p", { class: "hint" }, `${MIN_S} to ${MAX_S} seconds. Face the camera, in even light.`);
  const face = element("input", { type: "number", min: 0, step: 1, inputmode: "numeric", placeholder: "the largest", "data-testid": "face" });
  const exact = element("input", { type: "checkbox", "data-testid": "exact" });
  const asJob = element("input", { type: "checkbox", "data-testid": "as-job" });
  const options = element("details", { class: "options" }, element("summary", {}, "Options"), element("div", { class: "stack" },
    field("Which face", face, "A number from 0, left to right."),
    element("label", { class: "check" }, exact, "Search every frame for the face: slower, for many cuts"),
    element("label", { class: "check" }, asJob, "Run as a job, which goes on if you close the page")));
  const start = element("button", { class: "primary", "data-testid": "start", disabled: true }, "Read lips");
  const cancel = button("Cancel", { "data-testid": "cancel", hidden: true });
  const progress = progressBar("Reading");
  const error = errorBox();
  const root = element("form", { class: "card" }, drop.root, preview,
    element("div", { class: "stack" }, element("div", { class: "row" }, record), recordHint),
    options, element("div", { class: "row" }, start, cancel), progress.root, error);
  return { root, drop, preview, record, recordHint, face, exact, asJob, start, cancel, progress, error };
}

export function buildResult() {
  const video = element("video", { class: "media", controls: true, playsinline: true, "data-testid": "video", hidden: true });
  const empty = element("p", { class: "empty" }, "The video and its words appear here.");
  const unplayable = element("p", { class: "notice", hidden: true }, "This browser cannot play the file. It can be read all the same.");
  const warnings = element("div", { class: "stack", "data-testid": "warnings", hidden: true });
  const transcript = element("p", { class: "transcript", "data-testid": "transcript" });
  const copy = button("Copy", { class: "small" });
  const words = element("ol", { class: "words", "data-testid": "words", "aria-label": "Words in time" });
  const legend = element("p", { class: "hint" },
    "Select a word or a mouth to go there. The line of a word is solid if it is sure, dashed if it is likely, dotted if it is a guess.");
  const figures = element("dl", { class: "figures" });
  const alternatives = element("details", { class: "options", "data-testid": "alternatives", hidden: true });
  const downloads = FORMATS.map((format) => (
    button(format.toUpperCase(), { class: "small", "data-testid": `download-${format}`, value: format, "aria-label": `Download ${format.toUpperCase()}` })));
  const ending = element("div", { class: "stack-wide", hidden: true }, figures, alternatives,
    element("div", { class: "row" }, element("span", { class: "hint" }, "Download"), downloads));
  const answer = element("div", { class: "stack-wide", hidden: true },
    warnings, element("div", { class: "spread is-top" }, transcript, copy), words, legend, ending);
  const root = element("div", { class: "card" }, empty, video, unplayable, answer);
  return { root, video, empty, unplayable, warnings, transcript, copy, words, legend, figures, alternatives, downloads, ending, answer };
}

function button(text, attributes) {
  return element("button", { type: "button", ...attributes }, text);
}

// Show a whole answer (docs/http-api.md), but for its words.
export function showAnswer(parts, answer) {
  parts.transcript.textContent = answer.text || "No words";
  const notes = warningsOf(answer);
  parts.warnings.replaceChildren(...notes.map((text) => element("p", { class: "notice warning" }, text)));
  parts.warnings.hidden = notes.length === 0;
  showFigures(parts.figures, answer);
  showAlternatives(parts.alternatives, answer.alternatives);
  parts.ending.hidden = false;
}

// Return in words what speaks against trusting an answer: the server's own warnings last.
export function warningsOf({ text, confidence, num_frames: nFrames, frames_without_face: nWithout, model, warnings }) {
  const found = [];
  if (!text) {
    found.push("No speech was found. Is the mouth visible, and does it move?");
  } else if (confidence < LOW_CONFIDENCE) {
    found.push(`Low confidence (${percent(confidence)}): do not rely on this text. ${languageOf(model)}`);
  }
  if (nWithout > MANY_WITHOUT_FACE * nFrames) {
    found.push(`No face was found in ${nWithout} of ${nFrames} frames; the words there are guesses.`);
  }
  return [...found, ...warnings];
}

function languageOf(model) {
  if (model.weights !== "starter") return "The weights read only speech like that which they were trained on.";
  return "The bundled weights read only the six-word commands of the GRID corpus, such as “place green by Y six please”. "
    + "They turn any other speech into such words.";
}

function showFigures(list, answer) {
  const rows = [
    ["Confidence", percent(answer.confidence)],
    ["Duration", seconds(answer.duration_s)],
    ["Frames without a face", `${answer.frames_without_face} of ${answer.num_frames}`],
    ["Time to read", seconds((answer.timings_ms.total ?? 0) / 1000)],
    ["Weights", answer.model.weights],
  ];
  list.replaceChildren(...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function showAlternatives(details, alternatives = []) {
  details.hidden = alternatives.length < 2; // the first is the text itself
  details.replaceChildren(element("summary", {}, `Alternatives (${Math.max(alternatives.length - 1, 0)})`),
    element("ol", { class: "alternatives", start: 2 }, alternatives.slice(1).map(({ text, confidence }) => (
      element("li", {}, `${text} `, element("span", { class: "badge" }, percent(confidence)))))));
}
