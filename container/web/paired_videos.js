// A face before and after lip sync, side by side and in step: the video after it leads.
//
//     const pair = pairedVideos();
//     pair.show({ before, after, mode, loop })   Blobs; `before` may be an image. mode, loop: the options `sync_mode` and
//                                                `loop`, which say what the video before showed if the audio was longer
//     pair.clear();  pair.pause();  pair.root

import { element } from "./components.js";

const SEEK_S = 0.25; // a video before that is further off than this is sought; a nearer one is sped up or slowed down
const STILL_S = 0.01;
const GAIN = 3; // of the correction, per second: an offset falls to a third in 0.4 s

// Where the video before is while the one after is at `time_s`, and whether it plays forwards there.
export function sourceTime(time_s, { before_s, after_s, mode, loop }) {
  if (!Number.isFinite(before_s) || before_s <= 0) return { at: time_s, speed: 1 };
  if (mode === "remap") return { at: time_s * before_s / after_s, speed: before_s / after_s };
  if (time_s <= before_s) return { at: time_s, speed: 1 };
  if (mode === "loop" || (!mode && loop === "restart")) return { at: time_s % before_s, speed: 1 };
  const at = time_s % (2 * before_s);
  return at <= before_s ? { at, speed: 1 } : { at: 2 * before_s - at, speed: -1 };
}

function clock(value) {
  return `${Math.floor(value / 60)}:${(value % 60).toFixed(1).padStart(4, "0")}`;
}

export function pairedVideos() {
  const after = element("video", {
    class: "media", "data-testid": "result-video", "aria-label": "Video after lip sync", preload: "auto", playsinline: true,
  });
  const beforeVideo = element("video", {
    class: "media", "data-testid": "before-video", "aria-label": "Video before lip sync", preload: "auto", playsinline: true,
  });
  beforeVideo.muted = true;
  const beforeImage = element("img", { class: "media", alt: "Face before lip sync", hidden: true });
  const play = element("button", { type: "button", class: "primary", "data-testid": "play" }, "Play both");
  const seek = element("input", { type: "range", class: "seek", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Position", "data-testid": "seek" });
  const time = element("span", { class: "progress-text" });
  const original = element("button", { type: "button", class: "small", "aria-pressed": "false", "data-testid": "original" }, "Original audio");
  const root = element("div", { class: "stack" },
    element("div", { class: "pair" },
      element("figure", {}, element("figcaption", {}, "Before"), beforeVideo, beforeImage),
      element("figure", {}, element("figcaption", {}, "After"), after)),
    element("div", { class: "transport" }, play, seek, time, original));
  let timing = {}, addresses = [], ticking = false;

  function place() {
    return sourceTime(after.currentTime, { ...timing, before_s: beforeVideo.duration, after_s: after.duration });
  }

  function align() {
    if (beforeVideo.hidden || beforeVideo.readyState < HTMLMediaElement.HAVE_METADATA) return;
    const { at, speed } = place();
    const off = beforeVideo.currentTime - at;
    if (after.paused || speed < 0) {
      beforeVideo.pause();
      if (Math.abs(off) > STILL_S && !beforeVideo.seeking) beforeVideo.currentTime = at;
      return;
    }
    if (Math.abs(off) > SEEK_S && !beforeVideo.seeking) beforeVideo.currentTime = at;
    beforeVideo.playbackRate = Math.min(Math.max(speed * (1 - GAIN * off), 0.1), 8);
    if (beforeVideo.paused && at < beforeVideo.duration) beforeVideo.play().catch(() => {}); // the next tick tries again
  }

  function showTime() {
    const length = Number.isFinite(after.duration) ? after.duration : 0;
    seek.max = length;
    seek.value = after.currentTime;
    const text = `${clock(after.currentTime)} of ${clock(length)}`;
    time.textContent = text;
    seek.setAttribute("aria-valuetext", text);
  }

  function tick() {
    align();
    showTime();
    ticking = !after.paused;
    if (ticking) requestAnimationFrame(tick);
  }

  function follow() {
    play.textContent = after.paused ? "Play both" : "Pause";
    if (!ticking) tick();
  }

  for (const name of ["play", "pause", "ended", "seeking", "seeked", "loadedmetadata", "timeupdate"]) after.addEventListener(name, follow);
  beforeVideo.addEventListener("loadedmetadata", align);
  beforeVideo.addEventListener("seeked", () => { if (after.paused) align(); });
  play.addEventListener("click", () => {
    if (!after.paused) after.pause();
    else after.play().catch((error) => { time.textContent = `This browser cannot play the video: ${error.message}`; });
  });
  seek.addEventListener("input", () => { after.currentTime = Number(seek.value); });
  original.addEventListener("click", () => {
    const isOriginal = original.getAttribute("aria-pressed") !== "true";
    original.setAttribute("aria-pressed", String(isOriginal));
    after.muted = isOriginal;
    beforeVideo.muted = !isOriginal;
  });

  function clear() {
    after.pause();
    beforeVideo.pause();
    for (const one of [after, beforeVideo, beforeImage]) one.removeAttribute("src");
    after.load();
    beforeVideo.load();
    for (const address of addresses) URL.revokeObjectURL(address);
    addresses = [];
  }

  function show({ before, after: made, mode, loop }) {
    clear();
    timing = { mode, loop };
    const isImage = before.type.startsWith("image/");
    beforeVideo.hidden = original.hidden = isImage;
    beforeImage.hidden = !isImage;
    addresses = [before, made].map((blob) => URL.createObjectURL(blob));
    (isImage ? beforeImage : beforeVideo).src = addresses[0];
    after.src = addresses[1];
    after.muted = false;
    beforeVideo.muted = true;
    original.setAttribute("aria-pressed", "false");
  }

  return { root, show, clear, pause: () => after.pause() };
}
