// The folded options of lip sync: their controls, and what they say in a request (docs/lip-sync.md, "Options").
//
//     const options = syncOptions();
//     options.root;  options.read()   -> fields of the request, only those that differ from the default; throws Error
//     options.setModels(["starter"])  the server's checkpoints
//     options.setImage(true)          what does not apply to an image is turned off

import { element, field } from "./components.js";
import { parseSegments } from "./sync_request.js";

const SIDES = ["top", "bottom", "left", "right"];
const DEFAULT_PADS = [0, 10, 0, 0];

function select(name, choices) {
  return element("select", { name, "data-testid": name }, choices.map(([value, text]) => element("option", { value }, text)));
}

function number(name, attributes) {
  return element("input", { type: "number", name, inputmode: "decimal", "data-testid": name, ...attributes });
}

function numberOf(input, label) {
  if (!input.checkValidity()) throw new Error(`${label}: ${input.validationMessage}`);
  return input.value === "" ? null : Number(input.value);
}

export function syncOptions() {
  const models = element("fieldset", { hidden: true });
  const syncMode = select("sync_mode", [
    ["", "As long as the audio, as “Short video” says"],
    ["loop", "Loop: the video starts again"],
    ["bounce", "Bounce: the video plays backwards, then forwards"],
    ["cut_off", "Cut off: as long as the shorter one"],
    ["silence", "Silence: as long as the longer one"],
    ["remap", "Remap: the video is slowed down or sped up"],
  ]);
  const loop = select("loop", [["", "Plays backwards, then forwards"], ["restart", "Starts again"]]);
  const segments = element("input", { type: "text", name: "segments", "data-testid": "segments", placeholder: "2-5, 7.5-9", autocomplete: "off" });
  const speaker = select("speaker", [["", "The largest face"], ["auto", "Who speaks in the video's own audio"], ["index", "By its place, from the left"]]);
  const index = number("face_index", { min: 0, max: 99, step: 1, value: 0 });
  const indexField = field("Place of the face, from 0", index);
  indexField.hidden = true;
  speaker.addEventListener("change", () => { indexField.hidden = speaker.value !== "index"; });
  const enhance = select("enhance", [["none", "No"], ["video", "With detail from the video"], ["swin2sr", "Swin2SR (slow)"]]);
  const reference = select("reference", [["", "Steady: one face for as long as it fits"], ["each", "Each frame's own, as published"]]);
  const resize = select("resize_factor", [["1", "Full size"], ["2", "Half"], ["4", "A quarter"]]);
  const fps = number("fps", { min: 1, max: 120, step: "any", placeholder: "that of the video" });
  const pads = SIDES.map((side, i) => number(`pad-${side}`, { min: -2000, max: 2000, step: 1, value: DEFAULT_PADS[i] }));
  const nosmooth = element("input", { type: "checkbox", name: "nosmooth" });

  const root = element("details", { class: "options", "data-testid": "options" },
    element("summary", {}, "Options"),
    element("div", { class: "stack" },
      models,
      element("div", { class: "halves" },
        field("Audio and video of different lengths", syncMode),
        field("Short video", loop, "What follows its last frame."),
        field("Parts that speak, in seconds", segments, "The rest of the video stays as it is."),
        element("div", { class: "stack" }, field("Which of several faces", speaker), indexField),
        field("Sharpen the mouth", enhance, "Swin2SR needs weights that the server may have to fetch."),
        field("Reference face", reference),
        field("Frame size", resize),
        field("Frames per second", fps)),
      element("fieldset", {}, element("legend", {}, "Pixels added to the face box"),
        element("div", { class: "quarters" }, pads.map((input, i) => field(SIDES[i], input)))),
      element("label", { class: "check" }, nosmooth, "Do not smooth the face boxes")));

  function setModels(names) {
    models.hidden = names.length < 2;
    models.replaceChildren(element("legend", {}, "Checkpoints: a video for each"), ...names.map((name, i) => (
      element("label", { class: "check" }, element("input", { type: "checkbox", name: "models", value: name, checked: i === 0 }), name))));
  }

  function setImage(isImage) {
    segments.disabled = isImage;
    if (isImage) segments.value = "";
  }

  function readSpeaker() {
    if (speaker.value === "auto") return { active_speaker: { mode: "auto" } };
    return speaker.value === "index" ? { face_index: numberOf(index, "Place of the face") ?? 0 } : {};
  }

  function read() {
    const chosen = [...models.querySelectorAll("input:checked")].map((input) => input.value);
    if (!models.hidden && !chosen.length) throw new Error("Checkpoints: none is chosen; choose at least one.");
    const margins = pads.map((input, i) => numberOf(input, `Pixels at the ${SIDES[i]}`) ?? 0);
    const rate = numberOf(fps, "Frames per second");
    const parts = parseSegments(segments.value);
    return {
      ...(models.hidden ? {} : { models: chosen }),
      ...(syncMode.value ? { sync_mode: syncMode.value } : {}),
      ...(loop.value ? { loop: loop.value } : {}),
      ...(parts.length ? { segments: parts } : {}),
      ...readSpeaker(),
      ...(enhance.value === "none" ? {} : { enhance: enhance.value }),
      ...(reference.value ? { reference: reference.value } : {}),
      ...(resize.value === "1" ? {} : { resize_factor: Number(resize.value) }),
      ...(rate === null ? {} : { fps: rate }),
      ...(margins.every((value, i) => value === DEFAULT_PADS[i]) ? {} : { pads: margins }),
      ...(nosmooth.checked ? { nosmooth: true } : {}),
    };
  }

  return { root, read, setModels, setImage };
}
