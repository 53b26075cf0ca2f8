// The mouths that were read, side by side in time, under the words that they say: a slider that follows a video and seeks in it.
//
//     const strip = new MouthStrip(video);      // strip.root
//     strip.show(mouths, words)                 // of an answer (docs/http-api.md); hidden if it has no mouths
//     strip.clear()

import { element, seconds } from "./components.js";

export class MouthStrip {
  constructor(video) {
    this.words = element("div", { class: "strip-words" });
    this.mark = element("span", { class: "strip-mark" });
    this.slider = element("div", { class: "strip", role: "slider", tabindex: 0, "data-testid": "mouths" });
    this.root = element("div", { class: "strip-scroll", hidden: true }, this.slider);
    Object.assign(this, { video, mouths: null, items: [], shown: -1 });
    for (const type of ["timeupdate", "seeking", "seeked", "pause"]) video.addEventListener(type, () => this.place());
    video.addEventListener("play", () => this.follow());
    this.slider.addEventListener("click", ({ clientX }) => {
      const { left, width } = this.slider.getBoundingClientRect();
      this.seek(Math.floor((clientX - left) / width * this.mouths.count));
    });
    this.slider.addEventListener("keydown", (event) => this.handleKey(event));
  }

  clear() {
    Object.assign(this, { mouths: null, items: [], shown: -1 });
    this.root.hidden = true;
    this.slider.replaceChildren();
  }

  show(mouths, words) {
    this.clear();
    if (!mouths) return;
    this.mouths = mouths;
    this.items = words.filter(({ start, end }) => start !== null && end !== null);
    const image = element("img", { // the slider's label describes it
      alt: "", draggable: "false", src: `data:image/jpeg;base64,${mouths.image}`, width: mouths.count * mouths.width, height: mouths.height,
    });
    this.slider.replaceChildren(this.words, image, this.mark);
    this.slider.style.width = `${mouths.count * mouths.width * 2 / 3}px`;
    this.slider.setAttribute("aria-label", `The mouths that were read, one every ${seconds(mouths.interval_s)}`);
    this.slider.setAttribute("aria-valuemin", 0);
    this.slider.setAttribute("aria-valuemax", mouths.count - 1);
    const share = (time) => `${100 * Math.min(time / (mouths.count * mouths.interval_s), 1)}%`;
    this.words.replaceChildren(...this.items.map(({ word, start, end }) => {
      const bar = element("span", { title: word }, element("span", {}, word));
      Object.assign(bar.style, { left: share(start), width: share(end - start) });
      return bar;
    }));
    this.mark.style.width = `${100 / mouths.count}%`;
    this.root.hidden = false;
    this.place();
  }

  follow() {
    this.place();
    if (!this.video.paused && !this.video.ended) requestAnimationFrame(() => this.follow());
  }

  // Mark the mouth of the video's time, and scroll to it if it is another one than before.
  place() {
    if (!this.mouths) return;
    const { count, interval_s: interval } = this.mouths;
    const at = Math.min(Math.floor(this.video.currentTime / interval + 1e-6), count - 1);
    if (at === this.shown) return;
    this.shown = at;
    this.mark.style.left = `${100 * at / count}%`;
    const word = this.items.find(({ start, end }) => start <= (at + 0.5) * interval && (at + 0.5) * interval < end)?.word;
    this.slider.setAttribute("aria-valuenow", at);
    this.slider.setAttribute("aria-valuetext", `${seconds(at * interval)}${word ? `, ${word}` : ""}`);
    this.root.scrollLeft = (at + 0.5) / count * this.slider.offsetWidth - this.root.clientWidth / 2;
  }

  seek(i) {
    const { count, interval_s: interval } = this.mouths;
    this.video.currentTime = Math.min(Math.max(i, 0), count - 1) * interval + 0.001; // within the mouth, however browsers round it
  }

  handleKey(event) {
    const { count } = this.mouths, at = Math.max(this.shown, 0);
    const target = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - 10, PageUp: at + 10, Home: 0, End: count - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.seek(target);
  }
}
