// Draws the frames of a live session and plays their audio.
// Everything is timed by the audio clock: audio is scheduled on it, and a frame is drawn when its audio is played.

const HEADER_BYTES = 28, SPEAKING = 1;
export const FRAME_S = 0.04;
export const LEAD_S = 0.12;        // from a frame's arrival until it is drawn, to absorb network jitter
const MAX_LEAD_S = 0.4;     // a longer lead is shortened at the next idle frame
const MAX_FRAMES = 250;     // queued for drawing; a page in the background draws none

export class AvatarPlayer {
  // context: an AudioContext. canvas: gets an event "shown" with each frame that is drawn on it.
  constructor(context, canvas) {
    this.context = context;
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.output = context.createGain();
    this.output.connect(context.destination);
    this.reset();
  }

  reset() {
    this.silence();
    this.origin = null;     // when the session's time 0 is played, on the context's clock
    this.oldest = 0;        // the oldest generation that may still be drawn
    this.shownAt = [];
    this.latest = null;     // the last frame that arrived
    this.nLost = 0;         // frames that did not arrive, or were overtaken by the next before they were drawn
  }

  silence() {
    for (const source of this.sources || []) source.stop();
    this.sources = new Set();
    for (const frame of this.frames || []) frame.image?.close();
    this.frames = [];
  }

  // Drop all frames that are not played yet, including those still to arrive.
  interrupt(generation) {
    this.oldest = Math.max(this.oldest, generation);
    this.silence();
  }

  push(frame) {
    if (frame.generation < this.oldest) return;
    if (this.latest?.generation === frame.generation) this.nLost += Math.max(frame.frame - this.latest.frame - 1, 0);
    this.latest = { generation: frame.generation, frame: frame.frame };
    this.frames.push(frame);
    this.place(frame);
    if (this.frames.length > MAX_FRAMES) this.frames.shift().image?.close();
    createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" })).then(
      (image) => { frame.image = image; }, () => { frame.failed = true; });
  }

  // Set when a frame is drawn, and schedule its audio.
  place(frame) {
    this.align(frame);
    frame.at = this.origin + frame.pts;
    if (frame.samples.length) this.play(frame);
  }

  // Keep arriving frames slightly ahead of the clock. In silence, a cut or a pause is inaudible.
  align(frame) {
    const now = this.context.currentTime;
    const lead = this.origin === null ? -1 : this.origin + frame.pts - now;
    const isLate = lead < 0.01, isEarly = lead > MAX_LEAD_S && !frame.isSpeaking;
    if (isLate || isEarly) this.origin = now + LEAD_S - frame.pts;
  }

  play(frame) {
    if (!frame.samples.some((value) => value !== 0)) return;
    const rate = this.context.sampleRate, n = frame.samples.length;
    const buffer = this.context.createBuffer(1, n, rate), channel = buffer.getChannelData(0);
    for (let i = 0; i < n; i++) channel[i] = frame.samples[i] / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.output);
    // The audio of dropped frames precedes that of this one.
    const starts = frame.at + FRAME_S - n / rate, late = Math.max(this.context.currentTime - starts, 0);
    if (late >= n / rate) return;
    source.start(starts + late, late);
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  // Draw the frame whose audio leaves the loudspeaker now.
  show() {
    const played = this.context.currentTime - (this.context.outputLatency || 0);
    let due = null;
    while (this.frames.length && this.frames[0].at <= played && (this.frames[0].image || this.frames[0].failed)) {
      if (due) this.nLost++;
      due?.image?.close();
      due = this.frames.shift();
    }
    if (!due?.image) return;
    this.pen.drawImage(due.image, 0, 0);
    due.image.close();
    this.shownAt.push(performance.now());
    this.canvas.dispatchEvent(new CustomEvent("shown", { detail: due }));
  }

  fps() {
    const since = performance.now() - 1000;
    this.shownAt = this.shownAt.filter((at) => at > since);
    return this.shownAt.length;
  }
}

// Parse a binary message of a session; docs/live-avatars.md describes it.
export function readFrame(message) {
  const view = new DataView(message), nJpeg = view.getUint32(24, true);
  const jpegEnd = HEADER_BYTES + nJpeg, nPcm = view.getUint32(jpegEnd, true);
  return {
    isSpeaking: (view.getUint8(1) & SPEAKING) !== 0,
    generation: view.getUint32(4, true),
    frame: view.getUint32(8, true),
    pts: view.getUint32(12, true) / 1000,
    jpeg: new Uint8Array(message, HEADER_BYTES, nJpeg),
    samples: new Int16Array(message.slice(jpegEnd + 4, jpegEnd + 4 + nPcm)),
  };
}
