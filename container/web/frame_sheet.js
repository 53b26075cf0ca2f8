// A contact sheet of lip sync: frames before and after it, with their times, as a PNG image. It is drawn in the browser, when
// the user opens it.
//
//     const sheet = frameSheet();
//     sheet.show({ before, after, mode, loop, name })   as of pairedVideos; name: of the file without its suffix
//     sheet.clear();  sheet.root

import { element, errorBox, clearError, save, seconds, showError } from "./components.js";
import { sourceTime } from "./paired_videos.js";

const N_MOMENTS = 8, N_COLUMNS = 4, N_COLUMNS_PHONE = 2;
const PHONE_WIDTH = 600; // px of a window below which a sheet has fewer columns
const CELL_WIDTH = 240, GAP = 8, TITLE = 24; // px; TITLE: height of the line above each row
const COLOURS = { ground: "#15181e", text: "#e9ebf0", missing: "#2c313c" }; // of the image, in light and dark alike
const FONT = "16px system-ui, sans-serif";

export function frameSheet() {
  const image = element("img", { class: "sheet", "data-testid": "sheet-image", hidden: true });
  const status = element("p", { class: "hint", role: "status" });
  const download = element("button", { type: "button", class: "small", "data-testid": "sheet-download", hidden: true }, "Download the contact sheet");
  const error = errorBox();
  error.dataset.testid = "sheet-error";
  const root = element("details", { class: "options", "data-testid": "sheet", ontoggle: () => draw() },
    element("summary", {}, "Contact sheet"),
    element("div", { class: "stack" }, image, error, element("div", { class: "row" }, download, status)));
  let wanted = null, address = null;

  async function draw() {
    const videos = wanted;
    if (!root.open || !videos || address) return;
    clearError(error);
    status.textContent = "Drawing …";
    try {
      const { canvas, times } = await drawSheet(videos);
      const png = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
      if (wanted !== videos || address) return; // another result is shown, or it was drawn meanwhile
      address = URL.createObjectURL(png);
      image.alt = `Frames before and after lip sync at ${times.map(seconds).join(", ")}`;
      Object.assign(image, { src: address, hidden: false });
      download.onclick = () => save(png, `${videos.name}.png`);
      download.hidden = false;
    } catch (reason) {
      if (wanted === videos) showError(error, reason);
    } finally {
      if (wanted === videos) status.textContent = "";
    }
  }

  function clear() {
    wanted = null;
    if (address) URL.revokeObjectURL(address);
    address = null;
    image.removeAttribute("src");
    image.hidden = download.hidden = true;
    status.textContent = "";
    clearError(error);
  }

  function show(videos) {
    clear();
    wanted = videos;
    draw();
  }

  return { root, show, clear };
}

// Return { canvas, times }: rows of frames before, each above the frames after at the same times, in seconds.
async function drawSheet({ before, after, mode, loop }) {
  const made = await FrameSource.open(after), given = await FrameSource.open(before);
  try {
    if (!made.width) throw new Error("This browser cannot show the video.");
    const height = Math.round(CELL_WIDTH * made.height / made.width), row = 2 * (TITLE + height) + GAP;
    const nColumns = innerWidth < PHONE_WIDTH ? N_COLUMNS_PHONE : N_COLUMNS, nRows = N_MOMENTS / nColumns;
    const canvas = element("canvas", { width: nColumns * (CELL_WIDTH + GAP) + GAP, height: nRows * (row + GAP) });
    const pen = canvas.getContext("2d");
    Object.assign(pen, { fillStyle: COLOURS.ground, font: FONT, textBaseline: "middle" });
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const times = Array.from({ length: N_MOMENTS }, (_, i) => (i + 0.5) / N_MOMENTS * made.duration);
    for (const [i, time] of times.entries()) {
      const left = GAP + i % nColumns * (CELL_WIDTH + GAP), top = Math.floor(i / nColumns) * (row + GAP);
      const { at } = sourceTime(time, { before_s: given.duration, after_s: made.duration, mode, loop });
      for (const [source, label, moment, y] of [[given, "Before", at, top], [made, "After", time, top + TITLE + height]]) {
        pen.fillStyle = COLOURS.text;
        pen.fillText(`${label} · ${seconds(moment)}`, left, y + TITLE / 2);
        await source.seek(moment);
        source.draw(pen, left, y + TITLE, CELL_WIDTH, height);
      }
    }
    return { canvas, times };
  } finally {
    made.close();
    given.close();
  }
}

// The frames of a video, or an image, out of the document. width is 0 if the browser cannot show it.
class FrameSource {
  static async open(blob) {
    const isImage = blob.type.startsWith("image/"), source = new FrameSource();
    source.address = URL.createObjectURL(blob);
    source.node = isImage ? new Image() : element("video", { preload: "auto", playsinline: true });
    source.node.muted = true;
    const opened = eventOf(source.node, isImage ? "load" : "loadeddata");
    source.node.src = source.address;
    await opened;
    return source;
  }

  get width() { return this.node.naturalWidth ?? this.node.videoWidth; }

  get height() { return this.node.naturalHeight ?? this.node.videoHeight; }

  get duration() { return this.node.duration ?? NaN; }

  async seek(time) {
    if (!this.width || this.node instanceof HTMLImageElement) return;
    const sought = eventOf(this.node, "seeked");
    this.node.currentTime = Math.min(time, Number.isFinite(this.duration) ? this.duration : time);
    await sought;
  }

  // Draw the frame, whole, in the middle of a cell.
  draw(pen, left, top, width, height) {
    if (!this.width) {
      pen.fillStyle = COLOURS.missing;
      pen.fillRect(left, top, width, height);
      return;
    }
    const scale = Math.min(width / this.width, height / this.height);
    const drawn = [this.width * scale, this.height * scale];
    pen.drawImage(this.node, left + (width - drawn[0]) / 2, top + (height - drawn[1]) / 2, ...drawn);
  }

  close() {
    this.node.removeAttribute("src");
    URL.revokeObjectURL(this.address);
  }
}

// Resolve when a media element sends the event, or an error: it has then no size, or its last frame.
function eventOf(node, name) {
  return new Promise((resolve) => {
    for (const one of [name, "error"]) node.addEventListener(one, resolve, { once: true });
  });
}
