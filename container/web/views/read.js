// The view Read: a video in, its words out, in step with the video.

import { attributesOf, isFinal } from "../api.js";
import { CameraRecorder, MAX_S, MIN_S, recordingFault } from "../camera.js";
import { toSrt, toVtt } from "../captions.js";
import { clearError, percent, save, seconds, showError } from "../components.js";
import { MouthStrip } from "../mouth_strip.js";
import { buildInput, buildResult, showAnswer } from "../read_parts.js";
import { WordTrack } from "../words.js";

const MAX_DIRECT_BYTES = 25 * 2 ** 20; // of a request that is answered at once; a larger video becomes a job
const WRITERS = {
  txt: ["text/plain", (answer) => `${answer.text}\n`],
  srt: ["application/x-subrip", (answer) => toSrt(answer.words)],
  vtt: ["text/vtt", (answer) => toVtt(answer.words)],
  json: ["application/json", ({ mouths, ...answer }) => `${JSON.stringify(answer, null, 2)}\n`], // without the image
};

export function mount(root, context) {
  const controller = new ReadController(context);
  root.classList.add("columns", "is-input-first");
  root.append(controller.input.root, controller.result.root);
  return { hide: () => controller.camera?.cancel() };
}

class ReadController {
  constructor(context) {
    const input = buildInput((file) => this.choose(file)), result = buildResult();
    Object.assign(this, { context, input, result, file: null, answer: null, request: null, camera: null });
    this.track = new WordTrack(result.words, result.video);
    this.strip = new MouthStrip(result.video);
    result.legend.after(this.strip.root);
    input.root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
    input.cancel.addEventListener("click", () => this.request?.abort());
    input.record.addEventListener("click", () => this.toggleRecording());
    result.video.addEventListener("error", () => this.hideVideo());
    result.video.addEventListener("loadedmetadata", () => findDuration(result.video));
    result.copy.addEventListener("click", () => this.copy());
    for (const button of result.downloads) button.addEventListener("click", () => this.download(button.value));
    const fault = recordingFault();
    if (fault) {
      input.record.disabled = true;
      input.recordHint.textContent = fault;
    }
  }

  choose(file) {
    this.request?.abort();
    const { input, result } = this;
    this.file = file;
    this.clearAnswer();
    clearError(input.error);
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = URL.createObjectURL(file);
    result.unplayable.hidden = true;
    result.empty.hidden = true;
    result.video.hidden = false;
    result.video.src = this.address;
    input.start.disabled = false;
  }

  hideVideo() {
    this.result.video.hidden = true;
    this.result.unplayable.hidden = false;
  }

  clearAnswer() {
    this.answer = null;
    this.track.clear();
    this.strip.clear();
    this.result.answer.hidden = true;
    this.result.ending.hidden = true;
    this.result.warnings.hidden = true;
    this.result.transcript.textContent = "";
  }

  // -- reading

  async read() {
    const { input, context } = this, request = this.request = new AbortController();
    this.clearAnswer();
    clearError(input.error);
    this.setBusy(true);
    try {
      const isJob = input.asJob.checked || this.file.size > MAX_DIRECT_BYTES;
      const answer = await (isJob ? this.readAsJob(request.signal) : this.readAtOnce(request.signal));
      if (this.request === request) this.finish(answer);
    } catch (error) {
      if (this.request !== request) return; // another file was chosen
      if (error.code === "access_denied") context.requireToken();
      this.track.clear();
      this.result.answer.hidden = true;
      if (error.code !== "canceled") showError(input.error, error);
    } finally {
      if (this.request === request) this.setBusy(false);
    }
  }

  options() {
    const { face, exact } = this.input;
    return { mouths: true, ...(face.value === "" ? {} : { face: Number(face.value) }), ...(exact.checked ? { exact: true } : {}) };
  }

  headers() {
    const type = this.file.type.startsWith("video/") ? this.file.type.split(";")[0] : "video/mp4"; // the server looks inside
    return { "Content-Type": type, ...attributesOf(this.options()) };
  }

  async readAtOnce(signal) {
    this.input.progress.set(null, "Reading …");
    let last = null;
    for await (const line of this.context.api.lines("invocations", { body: this.file, headers: this.headers(), signal })) {
      if (line.status === "reading") this.showPart(line.words);
      else last = line;
    }
    return last;
  }

  async readAsJob(signal) {
    const { api } = this.context, { progress } = this.input;
    let attempt = null;
    progress.set(null, "Sending …");
    const { id } = await api.submitJob(this.file, { headers: this.headers(), signal });
    const job = await api.waitForJob(id, {
      signal,
      onEvent: ({ event, data }) => {
        if (attempt !== data.attempt) this.track.clear(); // the job runs again, from the start
        ({ attempt } = data);
        if (event === "words") this.showPart(data.words);
        else if (event === "progress") progress.set(data.progress, `${data.progress} % · job ${id.slice(0, 8)}`);
        else if (!isFinal(data)) progress.set(null, `Job ${id.slice(0, 8)}: ${data.state}`);
      },
    });
    if (job.state === "succeeded") return job.result;
    throw new Error(job.error?.message ?? `The job was ${job.state}.`);
  }

  showPart(words) {
    this.result.answer.hidden = false;
    this.track.add(words);
    this.result.transcript.textContent = this.track.items.map(({ word }) => word).join(" ");
    const { end } = words.at(-1);
    if (end !== null) this.input.progress.set(this.shareOf(end), `Read ${seconds(end)}`);
  }

  shareOf(time) {
    const { duration } = this.result.video;
    return Number.isFinite(duration) && duration > 0 ? Math.min(100 * time / duration, 100) : null;
  }

  finish(answer) {
    this.answer = answer;
    this.track.clear();
    this.track.add(answer.words);
    showAnswer(this.result, answer);
    this.result.answer.hidden = false;
    this.strip.show(answer.mouths, answer.words);
    bringIntoView(this.result.root);
    this.context.announce(`Read, with a confidence of ${percent(answer.confidence)}: ${answer.text || "no words"}`);
  }

  setBusy(isBusy) {
    const { start, cancel, progress, record } = this.input;
    start.disabled = isBusy;
    record.disabled = isBusy || recordingFault() !== null;
    cancel.hidden = !isBusy;
    if (!isBusy) {
      progress.hide();
      this.request = null;
    }
  }

  // -- the answer

  async copy() {
    const { copy, transcript } = this.result;
    try {
      await navigator.clipboard.writeText(transcript.textContent);
      this.context.announce("Copied.");
    } catch { // not allowed here, as over plain HTTP: let the user copy it
      getSelection().selectAllChildren(transcript);
      copy.textContent = "Selected";
    }
  }

  download(format) {
    const [type, write] = WRITERS[format], name = this.file.name.replace(/\.[^.]*$/, "");
    save(new Blob([write(this.answer)], { type }), `${name}.${format}`);
  }

  // -- the camera

  async toggleRecording() {
    if (this.camera) {
      this.camera.stop();
      return;
    }
    const { input, result } = this;
    clearError(input.error);
    input.record.disabled = true; // until the camera is open, then until the shortest recording is done
    try {
      this.camera = await CameraRecorder.open();
      result.video.pause();
      this.showCamera(this.camera.stream);
      const file = await this.camera.record((now) => this.showRecorded(now));
      if (file) input.drop.set(file);
    } catch (error) {
      showError(input.error, error);
    } finally {
      this.camera = null;
      this.showCamera(null);
      input.record.disabled = false;
      input.record.textContent = "Record yourself";
    }
  }

  // stream: of the camera, or null if it is off.
  showCamera(stream) {
    const { drop, preview, start } = this.input;
    preview.srcObject = stream;
    preview.hidden = !stream;
    drop.root.hidden = Boolean(stream);
    start.disabled = Boolean(stream) || !this.file;
  }

  showRecorded(now) {
    const { record } = this.input;
    record.disabled = now < MIN_S;
    record.textContent = `${now < MIN_S ? "Recording" : "Stop"} · ${now.toFixed(1)} of ${MAX_S} s`;
  }
}

// A recording's header has no duration, until the browser has looked for its end.
function findDuration(video) {
  if (video.duration !== Infinity) return;
  video.addEventListener("durationchange", () => { video.currentTime = 0; }, { once: true });
  video.currentTime = Number.MAX_SAFE_INTEGER;
}

// On a phone the answer is below the form.
function bringIntoView(root) {
  if (root.getBoundingClientRect().top > innerHeight / 2) root.scrollIntoView();
}
