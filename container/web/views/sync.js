// Lip sync: a face and audio become a durable job, whose progress and result are shown here.

import { clearError, dropZone, element, errorBox, progressBar, save, seconds, showError } from "../components.js";
import { frameSheet } from "../frame_sheet.js";
import { describeError, remember } from "../job_words.js";
import { pairedVideos } from "../paired_videos.js";
import { speechSource } from "../speech_source.js";
import { syncOptions } from "../sync_options.js";
import { syncBody } from "../sync_request.js";

const STAGES = { sending: "Send", queued: "Wait", starting: "Load", processing: "Move lips", succeeded: "Done" };
const BUILT_IN = "starter"; // the avatar whose first frame is the built-in face

export function mount(root, context) {
  const view = new SyncView(context);
  root.append(view.form, view.work, view.result);
  context.onTokenChange(() => view.refresh());
  view.refresh();
  return { hide: () => view.pause() };
}

class SyncView {
  constructor(context) {
    this.context = context;
    this.face = this.job = this.canceling = null;
    this.options = syncOptions();
    this.speech = speechSource({ api: context.api, onError: (error) => this.fail(error) });
    this.form = this.buildForm();
    this.work = this.buildWork();
    this.result = this.buildResult();
  }

  buildForm() {
    const zone = dropZone({
      label: "Video or image of a face", hint: "mp4, webm, mov, jpg or png: drop it here, or choose it", accept: "video/*,image/*",
      testid: "face-input", onFile: (file) => this.setFace(file),
    });
    this.zone = zone;
    this.faceVideo = element("video", { class: "media preview", controls: true, playsinline: true, "aria-label": "Face that was chosen", hidden: true });
    this.faceImage = element("img", { class: "media preview", alt: "Face that was chosen", hidden: true });
    this.undecodable = element("p", { class: "notice warning", role: "status", "data-testid": "face-undecodable", hidden: true });
    for (const node of [this.faceVideo, this.faceImage]) node.addEventListener("error", () => this.showUndecodable(node));
    const builtIn = element("button", { type: "button", class: "small", "data-testid": "builtin-face", onclick: () => this.useBuiltIn(builtIn) }, "Use the built-in face");
    this.start = element("button", { class: "primary", "data-testid": "start" }, "Move the lips");
    this.cancel = element("button", { type: "button", class: "danger", "data-testid": "cancel", hidden: true, onclick: () => this.stop() }, "Cancel");
    this.error = errorBox();
    return element("form", { class: "view", novalidate: true, onsubmit: (event) => { event.preventDefault(); this.run(); } },
      element("div", { class: "halves" },
        element("fieldset", { class: "card" }, element("legend", { class: "card-title" }, "Face"), zone.root,
          element("div", { class: "row" }, builtIn, element("span", { class: "hint" }, "a rendered person")), this.faceVideo, this.faceImage, this.undecodable),
        this.speech.root),
      element("div", { class: "card" }, this.options.root, element("div", { class: "row" }, this.start, this.cancel), this.error));
  }

  buildWork() {
    this.stages = Object.fromEntries(Object.entries(STAGES).map(([name, text]) => [name, element("li", {}, text)]));
    this.progress = progressBar("Progress of the lip sync");
    return element("section", { class: "card", "aria-label": "Progress", hidden: true },
      element("ol", { class: "stages", "data-testid": "stages" }, Object.values(this.stages)), this.progress.root,
      element("p", { class: "hint" }, "It runs on if you close this page; ", element("a", { href: "#jobs" }, "Jobs"), " has the result."));
  }

  buildResult() {
    this.pair = pairedVideos();
    this.sheet = frameSheet();
    this.outputs = element("div", { class: "row" });
    this.figures = element("dl", { class: "figures" });
    this.warnings = element("div", { class: "stack" });
    this.heading = element("h3", { tabindex: -1 }, "Before and after");
    return element("section", { class: "card", "data-testid": "result", "aria-label": "Result", hidden: true },
      this.heading, this.pair.root, this.sheet.root, this.warnings, this.figures, this.outputs);
  }

  async refresh() {
    this.speech.refresh();
    try {
      const { sync_models: names = [] } = await this.context.api.json("health");
      this.options.setModels(names);
    } catch {
      this.options.setModels([]); // without the list, the server's first checkpoint is used; a submission says what is wrong
    }
  }

  setFace(file) {
    this.face = file;
    if (this.faceAddress) URL.revokeObjectURL(this.faceAddress);
    this.faceAddress = file ? URL.createObjectURL(file) : null;
    const isImage = Boolean(file?.type.startsWith("image/"));
    for (const [node, isShown] of [[this.faceVideo, file && !isImage], [this.faceImage, file && isImage]]) {
      node.hidden = !isShown;
      if (isShown) node.src = this.faceAddress;
      else node.removeAttribute("src");
    }
    this.undecodable.hidden = true;
    this.options.setImage(isImage);
  }

  // In the place of an empty player. The server knows more formats than browsers do, so that the file may be good.
  showUndecodable(node) {
    if (node.hidden) return; // another file was chosen
    node.hidden = true;
    this.undecodable.textContent = `This browser cannot show ${this.face.name}. It may be damaged, or of a format that only the server reads.`;
    this.undecodable.hidden = false;
  }

  async useBuiltIn(button) {
    button.disabled = true;
    clearError(this.error);
    try {
      const blob = await this.context.api.blob(`v1/avatars/${BUILT_IN}/background/0`);
      this.zone.set(new File([blob], "built-in face.jpg", { type: "image/jpeg" }));
    } catch (error) {
      this.fail(error);
    } finally {
      button.disabled = false;
    }
  }

  async run() {
    if (this.canceling) return;
    this.canceling = new AbortController();
    this.job = null;
    const { signal } = this.canceling;
    this.setBusy(true);
    try {
      const { face, audio, options } = await this.gather(signal);
      this.showStage("sending", null, "Sending the files");
      this.job = await this.context.api.submitJob(await syncBody(face, audio, options), { signal });
      remember(this.job.id, { task: "lipsync", names: [face.name, audio.name] });
      this.context.announce("The lip sync was submitted.");
      const done = await this.context.api.waitForJob(this.job.id, { signal, onEvent: (event) => this.follow(event) });
      await this.finish(done, face, options);
    } catch (error) {
      this.fail(error);
    } finally {
      this.canceling = null;
      this.setBusy(false);
    }
  }

  async gather(signal) {
    if (!this.face) throw new Error("Choose a face: a video or an image.");
    const options = this.options.read();
    return { face: this.face, options, audio: await this.speech.audio(signal) };
  }

  follow({ event, data }) {
    if (event === "state") this.showStage(data.state, null, { queued: "Waiting for a worker", starting: "Starting", processing: "Reading the video" }[data.state]);
    if (event === "progress") this.showStage("processing", data.progress, `Moving the lips: ${data.progress} %`);
  }

  showStage(name, value, text) {
    if (!(name in STAGES)) return;
    this.work.hidden = false;
    const names = Object.keys(STAGES), at = names.indexOf(name);
    names.forEach((one, i) => {
      this.stages[one].className = i < at ? "is-done" : "";
      if (i === at) this.stages[one].setAttribute("aria-current", "step");
      else this.stages[one].removeAttribute("aria-current");
    });
    this.progress.set(name === "succeeded" ? 100 : value, text ?? "");
  }

  async finish(job, face, options) {
    if (job.state === "canceled") throw Object.assign(new Error("The lip sync was canceled."), { code: "canceled" });
    if (job.state !== "succeeded") throw Object.assign(new Error(describeError(job.error ?? { message: "It failed." })), { code: job.error?.code });
    this.showStage("succeeded", 100, "Fetching the video");
    const videos = [];
    for (const output of job.outputs.filter((one) => one.url)) {
      videos.push({ output, blob: await this.context.api.blob(output.url) });
    }
    this.work.hidden = true;
    this.showResult(job.result, videos, face, options);
  }

  showResult(result, videos, face, { sync_mode: mode, loop }) {
    const play = ({ blob, output }) => {
      const videos = { before: face, after: blob, mode, loop };
      this.pair.show(videos);
      this.sheet.show({ ...videos, name: output.name.replace(/\.[^.]*$/, "") });
    };
    this.outputs.replaceChildren(...videos.flatMap((video) => {
      const name = video.output.details?.model ?? video.output.name;
      const several = videos.length > 1;
      return [
        several ? element("button", { type: "button", onclick: () => play(video) }, `Show ${name}`) : null,
        element("button", { type: "button", "data-testid": "download", onclick: () => save(video.blob, video.output.name) }, several ? `Download ${name}` : "Download the video"),
      ].filter(Boolean);
    }));
    const total = result.timings_ms?.total;
    const figures = [
      ["Length", seconds(result.duration_s)], ["Frames", String(result.num_frames)], ["Frames per second", String(Math.round(result.fps * 100) / 100)],
      ["Size", `${result.width} × ${result.height}`], ["Frames without a face", String(result.frames_without_face)],
      ...(total === undefined ? [] : [["Time to make", seconds(total / 1000)]]),
    ];
    this.figures.replaceChildren(...figures.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    this.warnings.replaceChildren(...(result.warnings ?? []).map((text) => element("p", { class: "notice warning" }, String(text).replaceAll("_", " "))));
    this.warnings.hidden = !this.warnings.childElementCount;
    this.result.hidden = false;
    play(videos[0]);
    this.context.announce("The video is ready.");
    this.heading.focus();
  }

  stop() {
    if (!this.job) this.canceling?.abort();
    else this.context.api.cancelJob(this.job.id).catch((error) => this.fail(error)); // its events then end
  }

  fail(error) {
    this.work.hidden = true;
    if (error.code === "access_denied" && error.status === 403) this.context.requireToken();
    showError(this.error, error);
  }

  setBusy(isBusy) {
    if (isBusy) {
      clearError(this.error);
      this.result.hidden = true;
      this.pair.clear();
      this.sheet.clear();
    }
    this.start.disabled = isBusy;
    this.cancel.hidden = !isBusy;
    this.form.setAttribute("aria-busy", String(isBusy));
  }

  pause() {
    this.pair.pause();
    this.faceVideo.pause();
    this.speech.hide();
  }
}
