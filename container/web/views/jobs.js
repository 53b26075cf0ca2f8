// The durable jobs of this client: their states, results and errors. The list is polled, more rarely while nothing changes.

import { clearError, element, errorBox, progressBar, save, bytes, showError } from "../components.js";
import { isFinal } from "../api.js";
import { describeError, stageOf, stateOf, titleOf } from "../job_words.js";

const PAGE = 20, MAX_PAGE = 100;
const FIRST_WAIT_MS = 1000, MAX_WAIT_MS = 30_000, SLOWER = 1.5;
const FILTERS = { "": "All jobs", queued: "Waiting", processing: "Running", succeeded: "Done", failed: "Failed", canceled: "Canceled" };
const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function mount(root, context) {
  const list = new JobList(context);
  root.append(list.root);
  context.onTokenChange(() => list.restart());
  document.addEventListener("visibilitychange", () => list.restart());
  return { show: () => list.resume(), hide: () => list.pause() };
}

class JobList {
  constructor(context) {
    this.context = context;
    this.cards = new Map(); // id -> JobCard
    this.n_wanted = PAGE;
    this.wait = FIRST_WAIT_MS;
    this.isShown = false;
    this.timer = this.asking = null;
    this.filter = element("select", { "aria-label": "Which jobs", "data-testid": "state-filter", onchange: () => this.reset() },
      Object.entries(FILTERS).map(([value, text]) => element("option", { value }, text)));
    this.status = element("span", { class: "hint", "data-testid": "refreshed" });
    this.error = errorBox();
    this.items = element("ul", { class: "jobs", "data-testid": "jobs" });
    this.empty = element("p", { class: "empty", hidden: true, "data-testid": "no-jobs" }, "No jobs here. What you submit in Read and Sync, or by the API, is listed.");
    this.more = element("button", { type: "button", hidden: true, "data-testid": "more", onclick: () => { this.n_wanted += PAGE; this.restart(); } }, "Older jobs");
    this.root = element("div", { class: "stack" },
      element("div", { class: "spread" },
        element("div", { class: "row filter" }, this.filter),
        element("div", { class: "row" }, this.status, element("button", { type: "button", class: "small", "data-testid": "refresh", onclick: () => this.restart() }, "Refresh"))),
      this.error, this.items, this.empty, element("div", { class: "row" }, this.more));
  }

  resume() {
    this.isShown = true;
    this.restart();
  }

  pause() {
    this.isShown = false;
    clearTimeout(this.timer);
    this.asking?.abort();
  }

  reset() {
    this.n_wanted = PAGE;
    this.restart();
  }

  restart() {
    this.wait = FIRST_WAIT_MS;
    this.pauseTimer();
    if (this.isShown && document.visibilityState === "visible") this.refresh();
  }

  pauseTimer() {
    clearTimeout(this.timer);
    this.asking?.abort();
  }

  async refresh() {
    const asking = this.asking = new AbortController();
    let pause = null;
    try {
      const { jobs, hasMore } = await this.fetch(asking.signal);
      const hasChanged = this.update(jobs);
      this.more.hidden = !hasMore;
      clearError(this.error);
      this.status.textContent = `As of ${new Date().toLocaleTimeString()}`;
      this.wait = hasChanged ? FIRST_WAIT_MS : Math.min(this.wait * SLOWER, MAX_WAIT_MS);
    } catch (error) {
      if (error.code === "canceled") return; // another refresh follows, or the view is hidden
      if (error.code === "access_denied") this.context.requireToken();
      showError(this.error, error);
      this.wait = Math.min(this.wait * 2, MAX_WAIT_MS);
      pause = error.retryAfterS && error.retryAfterS * 1000;
    }
    if (this.asking !== asking || !this.isShown) return;
    this.timer = setTimeout(() => this.refresh(), Math.max(pause ?? 0, this.wait));
  }

  async fetch(signal) {
    const jobs = [];
    let cursor = null;
    do {
      const limit = Math.min(this.n_wanted - jobs.length, MAX_PAGE);
      const page = await this.context.api.jobs({ limit, cursor, state: this.filter.value, signal });
      jobs.push(...page.jobs);
      cursor = page.next_cursor;
    } while (cursor && jobs.length < this.n_wanted);
    return { jobs, hasMore: Boolean(cursor) };
  }

  // Cards are kept, so that the focus and what is open stay; returns whether anything is new.
  update(jobs) {
    let hasChanged = false;
    const ids = new Set(jobs.map(({ id }) => id));
    for (const [id, card] of this.cards) {
      if (ids.has(id)) continue;
      card.remove();
      this.cards.delete(id);
      hasChanged = true;
    }
    jobs.forEach((job, i) => {
      const isNew = !this.cards.has(job.id);
      if (isNew) this.cards.set(job.id, new JobCard(this.context, job.id));
      const card = this.cards.get(job.id);
      hasChanged = card.update(job) || hasChanged;
      if (this.items.children[i] !== card.root) this.items.insertBefore(card.root, this.items.children[i] ?? null);
    });
    this.empty.hidden = jobs.length > 0;
    return hasChanged;
  }
}

class JobCard {
  constructor(context, id) {
    Object.assign(this, { context, id, seen: null, state: null, address: null });
    this.title = element("h3");
    this.badge = element("span", { class: "badge", "data-testid": "job-state" });
    this.times = element("p", { class: "hint" });
    this.progress = progressBar("Progress of the job");
    this.cancel = element("button", { type: "button", class: "danger small", "data-testid": "cancel", onclick: () => this.stop() }, "Cancel");
    this.error = errorBox();
    this.result = element("div", { class: "stack", "data-testid": "job-result" });
    this.details = element("details", { class: "options", "data-testid": "job-details", ontoggle: () => this.open() }, element("summary", {}, "Details"), this.result);
    this.root = element("li", { class: "card", "data-testid": "job", "data-job-id": id },
      element("div", { class: "spread" }, element("div", { class: "row" }, this.title, this.badge), this.cancel),
      this.times, this.progress.root, this.error, this.details);
  }

  update(job) {
    const seen = JSON.stringify(job);
    if (seen === this.seen) return false;
    const hasEnded = this.state !== null && this.state !== job.state && isFinal(job);
    this.seen = seen;
    this.state = job.state;
    const { text, kind } = stateOf(job);
    this.title.textContent = titleOf(job);
    this.badge.textContent = text;
    this.badge.className = `badge ${kind}`;
    this.times.textContent = timesOf(job);
    this.cancel.hidden = isFinal(job);
    this.cancel.setAttribute("aria-label", `Cancel ${titleOf(job)}`);
    if (job.state === "processing") this.progress.set(job.progress, `${stageOf(job)}: ${job.progress} %`);
    else this.progress.hide();
    if (job.error) showError(this.error, { message: describeError(job.error) });
    else clearError(this.error);
    if (hasEnded) this.context.announce(`${titleOf(job)}: ${text}`);
    if (this.details.open) this.load();
    return true;
  }

  async stop() {
    this.cancel.disabled = true;
    try {
      const { id, state, progress, stage, task, error, created_at, started_at, finished_at } = await this.context.api.cancelJob(this.id);
      this.update({ id, state, progress, stage, task, error, created_at, started_at, finished_at });
      this.details.querySelector("summary").focus(); // the button is gone
    } catch (error) {
      showError(this.error, error);
    } finally {
      this.cancel.disabled = false;
    }
  }

  open() {
    if (this.details.open) this.load();
    else this.forget();
  }

  async load() {
    try {
      const job = await this.context.api.job(this.id);
      this.forget();
      this.result.replaceChildren(
        ...(job.result?.text === undefined ? [] : [element("p", { "data-testid": "job-text" }, job.result.text || "No words were read.")]),
        ...job.outputs.filter(({ url }) => url).map((output) => this.outputRow(output)),
        this.facts(job),
        ...job.attempts.filter(({ ended_at }) => ended_at).map((attempt) => this.logButton(attempt)));
    } catch (error) {
      showError(this.error, error);
    }
  }

  outputRow(output) {
    const isVideo = output.content_type === "video/mp4";
    const row = element("div", { class: "row" },
      element("button", { type: "button", class: "small", "data-testid": "download", onclick: (event) => this.saveFile(event.currentTarget, output.url, output.name) }, `Download ${output.name}`),
      isVideo ? element("button", { type: "button", class: "small", "data-testid": "watch", onclick: (event) => this.watch(event.currentTarget, output) }, "Watch") : null,
      element("span", { class: "hint" }, output.size === null ? "" : bytes(output.size)));
    return element("div", { class: "stack" }, row);
  }

  // A link cannot carry a token, so that the file is fetched with it. Without one, a link takes less memory.
  saveFile(button, path, name) {
    const { api } = this.context;
    return this.during(button, async () => {
      if (api.token) save(await api.blob(path), name);
      else element("a", { href: api.address(path), download: name }).click();
    });
  }

  watch(button, output) {
    return this.during(button, async () => {
      const blob = await this.context.api.blob(output.url);
      this.forget();
      this.address = URL.createObjectURL(blob);
      const video = element("video", { class: "media", src: this.address, controls: true, playsinline: true, "aria-label": output.name, "data-testid": "result-video" });
      button.closest(".stack").append(video);
    });
  }

  logButton(attempt) {
    return element("div", { class: "row" }, element("button", {
      type: "button", class: "small",
      onclick: (event) => this.saveFile(event.currentTarget, attempt.log_url, `${this.id}-${attempt.number}.txt`),
    }, `Download the log of attempt ${attempt.number}`));
  }

  async during(button, work) {
    button.disabled = true;
    clearError(this.error);
    try {
      await work();
    } catch (error) {
      showError(this.error, error);
    } finally {
      button.disabled = false;
      button.focus();
    }
  }

  facts(job) {
    const facts = [["Id", job.id], ["Input", bytes(job.input_bytes)], ["Attempts", String(job.attempts.length)],
      ...(job.result?.duration_s === undefined ? [] : [["Length", `${job.result.duration_s.toFixed(2)} s`]])];
    return element("dl", { class: "figures" }, facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  }

  forget() {
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
    this.result.querySelector("video")?.remove();
  }

  remove() {
    this.forget();
    this.root.remove();
  }
}

function timesOf({ created_at: created, started_at: started, finished_at: finished }) {
  const texts = [`Submitted ${TIME.format(new Date(created))}`];
  if (started && finished) texts.push(`took ${((new Date(finished) - new Date(started)) / 1000).toFixed(1)} s`);
  return texts.join(" · ");
}
