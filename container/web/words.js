// Words under a playing video: the current one is lit, each shows its confidence, and a click goes to it.

import { element, percent } from "./components.js";

// Shares above which a word counts as sure, or as likely. The probabilities are calibrated: see docs/benchmarks.md.
const SURE = 0.8, LIKELY = 0.5;

export function levelOf(confidence) {
  if (confidence === null || confidence === undefined) return null;
  if (confidence >= SURE) return "sure";
  return confidence >= LIKELY ? "likely" : "unsure";
}

export class WordTrack {
  // list: the <ol> to fill. video: the <video> whose time lights the words.
  constructor(list, video) {
    Object.assign(this, { list, video, items: [], lit: null });
    for (const type of ["timeupdate", "seeking", "seeked", "pause"]) video.addEventListener(type, () => this.light());
    video.addEventListener("play", () => this.follow());
  }

  clear() {
    this.list.replaceChildren();
    this.items = [];
    this.lit = null;
  }

  add(words) {
    for (const word of words) {
      const button = this.build(word);
      this.items.push({ ...word, button });
      this.list.append(element("li", {}, button));
    }
    this.light();
  }

  build({ word, start, end, confidence }) {
    const level = levelOf(confidence), hasTime = start !== null && end !== null;
    const times = hasTime ? `${start.toFixed(2)} to ${end.toFixed(2)} s` : "time unknown";
    return element("button", {
      type: "button", class: `word ${level ?? ""}`, disabled: !hasTime, title: `${times}${level ? `, ${level}` : ""}`,
      onclick: () => { this.video.currentTime = start + 0.001; }, // within the word, however browsers round it
    }, element("span", { class: "word-text" }, word),
    level && element("span", { class: "word-confidence" }, percent(confidence)));
  }

  // `timeupdate` comes four times a second, which is too rarely for words of 200 ms.
  follow() {
    this.light();
    if (!this.video.paused && !this.video.ended) requestAnimationFrame(() => this.follow());
  }

  light() {
    const now = this.video.currentTime;
    const found = this.items.find(({ start, end }) => start !== null && start <= now && now < end)?.button ?? null;
    if (found === this.lit) return;
    this.lit?.removeAttribute("aria-current");
    found?.setAttribute("aria-current", "true");
    this.lit = found;
  }
}
