// The elements of the pair of live avatars.

import { dropZone, element, errorBox, field } from "./components.js";

export const SIDES = ["left", "right"];

export function buildPair() {
  const sides = Object.fromEntries(SIDES.map((side) => [side, buildSide(side)]));
  const stage = element("div", { class: "card" },
    element("div", { class: "pair" }, SIDES.map((side) => sides[side].root)));
  const error = errorBox();
  error.dataset.testid = "pair-error";

  const files = { left: null, right: null, both: null };
  const drop = (name, label, hint) => dropZone({
    label, hint, accept: "audio/*,video/*", testid: `${name}-audio`, onFile: (file) => { files[name] = file; },
  });
  const apart = element("div", { class: "stack" },
    drop("left", "Audio of the left avatar", "Drop it here, or choose one").root,
    drop("right", "Audio of the right avatar", "Drop it here, or choose one").root);
  const together = element("div", { hidden: true }, drop("both", "Audio with two channels", "The left channel is the left avatar's").root);
  const inTurn = element("input", { type: "checkbox", "data-testid": "in-turn" });
  const order = element("label", { class: "check" }, inTurn, "Start the right file when the left one has ended");
  const form = choices("Audio", "pair-files", { apart: "A file for each", together: "One stereo file" }, (name) => {
    apart.hidden = order.hidden = name !== "apart";
    together.hidden = name !== "together";
  });
  const start = element("button", { class: "primary", "data-testid": "pair-start", disabled: true }, "Start both");
  const controls = element("form", { class: "card" },
    element("div", { class: "pair" }, SIDES.map((side) => field(`${title(side)} avatar`, sides[side].avatar))),
    form, apart, together, order,
    element("p", { class: "hint" }, "Each avatar gets its own audio alone. While the other one speaks, it listens."),
    element("div", { class: "row" }, start), error);
  return { stage, controls, sides, error, files, apart, inTurn, start };
}

function buildSide(side) {
  const canvas = element("canvas", {
    class: "media", width: 640, height: 480, role: "img", "aria-label": `The ${side} avatar`, "data-testid": `${side}-canvas`,
  });
  const state = element("span", { class: "badge", "data-testid": `${side}-state` }, "Not connected");
  const figures = {
    fps: element("dd", { "data-testid": `${side}-fps` }, "0"),
    latency: element("dd", { "data-testid": `${side}-latency` }, "–"),
    lost: element("dd", { "data-testid": `${side}-lost` }, "0"),
  };
  const labels = { fps: "Frames per second", latency: "Answer after", lost: "Lost frames" };
  const list = element("dl", { class: "figures" }, Object.entries(labels).map(
    ([name, label]) => element("div", {}, element("dt", {}, label), figures[name])));
  const stage = element("div", { class: "live-stage" }, canvas);
  const root = element("figure", {},
    element("figcaption", { class: "spread" }, title(side), state), stage, list);
  const avatar = element("select", { "data-testid": `${side}-avatar` });
  return { root, canvas, state, stage, avatar, ...figures };
}

function title(side) {
  return side[0].toUpperCase() + side.slice(1);
}

// Radio buttons. texts: label by value; the first one is chosen. onChange(value).
export function choices(legend, name, texts, onChange) {
  const inputs = Object.entries(texts).map(([value, text], i) => element("label", { class: "choice" },
    element("input", { type: "radio", name, value, checked: i === 0, "data-testid": `${name}-${value}`, onchange: () => onChange(value) }), text));
  return element("fieldset", {}, element("legend", {}, legend), element("div", { class: "choices" }, inputs));
}
