// The server's HTTP API (docs/http-api.md, docs/jobs.md) by fetch.
//
//     const api = new Api();          // one for the page; views get it as context.api
//     api.token = "...";              // sent as Authorization: Bearer, kept in memory only
//
//     await api.request(path, options)   -> Response with a status of 2xx; its body is not read yet
//     await api.json(path, options)      -> the parsed JSON body
//     await api.blob(path, options)      -> the body as a Blob
//     api.lines(path, options)           -> async iterator of the objects of an NDJSON answer
//
// path: relative to the server, without a leading slash ("invocations", "v1/jobs"), or a path that the server sent
// ("/v1/jobs/ID/outputs/a.mp4"). options: { method, body, headers, accept, signal }. `body`: a Blob, a string or
// FormData is sent as it is, any other object as JSON; with a body the method is POST unless it is given. A Blob's
// own type is the Content-Type unless `headers` has one.
//
//     await api.submitJob(body, { headers, attributes, idempotencyKey, signal })   -> job (docs/jobs.md)
//     await api.job(id, { signal })                                                -> job
//     await api.jobs({ limit, cursor, state, signal })                             -> { jobs, next_cursor }
//     await api.cancelJob(id)                                                      -> job
//     api.events(id, { signal, lastEventId })   -> async iterator of { id, event, data }; event: "state", "progress"
//                                                  or "words"; data: the parsed object. It reconnects until the end.
//     await api.waitForJob(id, { signal, onEvent })   -> the finished job, whatever its state
//
//     attributesOf({ face: 0 })        -> the header with the options of a raw body
//     api.webSocket(path, query)       -> an open WebSocket to the same server, with the token
//
// Everything throws ApiError { code, message, status, retryAfterS }: `code` is the server's ("no_face_found"), or
// "unreachable" (no connection), "bad_answer" (not the expected form), or "canceled" (`signal` was aborted). Show
// `message` as text, never as HTML.

const ROOT = new URL("..", import.meta.url); // of the server: this file is in web/
const FINAL_STATES = new Set(["succeeded", "failed", "canceled"]);
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes";

export class ApiError extends Error {
  constructor(code, message, { status = 0, retryAfterS = null, cause } = {}) {
    super(message, { cause });
    Object.assign(this, { name: "ApiError", code, status, retryAfterS });
  }
}

export function attributesOf(options) {
  return { [ATTRIBUTES_HEADER]: JSON.stringify(options) };
}

export function isFinal(job) {
  return FINAL_STATES.has(job.state);
}

export class Api {
  token = "";

  address(path) {
    const address = new URL(path.replace(/^\/+/, ""), ROOT);
    if (address.origin !== ROOT.origin) throw new ApiError("bad_answer", `${path}: not an address of this server`);
    return address;
  }

  async request(path, { method, body, headers = {}, accept, signal } = {}) {
    const sent = new Headers(headers);
    if (accept) sent.set("Accept", accept);
    if (this.token) sent.set("Authorization", `Bearer ${latin1(this.token)}`);
    let content = body;
    if (body && !(body instanceof Blob) && !(body instanceof FormData) && typeof body !== "string") {
      content = JSON.stringify(body);
      if (!sent.has("Content-Type")) sent.set("Content-Type", "application/json");
    }
    const options = { method: method ?? (body ? "POST" : "GET"), body: content, headers: sent, signal, cache: "no-store" };
    let response;
    try {
      response = await fetch(this.address(path), options);
    } catch (error) {
      throw transportError(error);
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  async json(path, options) {
    const response = await this.request(path, { accept: "application/json", ...options });
    return readBody(response, "json");
  }

  async blob(path, options) {
    return readBody(await this.request(path, options), "blob");
  }

  async *lines(path, options) {
    const response = await this.request(path, { accept: "application/x-ndjson", ...options });
    for await (const line of readLines(response)) {
      if (!line) continue;
      const found = parse(line);
      if (found.status === "error") throw new ApiError(found.error.code, found.error.message); // the status was sent before
      yield found;
    }
  }

  submitJob(body, { headers = {}, attributes, idempotencyKey = newKey(), signal } = {}) {
    const own = { "Idempotency-Key": idempotencyKey, ...(attributes ? attributesOf(attributes) : {}) };
    return this.json("v1/jobs", { body, headers: { ...own, ...headers }, signal });
  }

  job(id, { signal } = {}) {
    return this.json(jobPath(id), { signal });
  }

  jobs({ limit, cursor, state, signal } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ limit, cursor, state })) if (value) query.set(name, value);
    return this.json(`v1/jobs?${query}`, { signal });
  }

  cancelJob(id) {
    return this.json(jobPath(id), { method: "DELETE" });
  }

  // EventSource cannot send a token, so the stream is read by fetch.
  async *events(id, { signal, lastEventId = "" } = {}) {
    let nFailures = 0;
    for (;;) {
      try {
        const headers = lastEventId ? { "Last-Event-ID": lastEventId } : {};
        const response = await this.request(`${jobPath(id)}/events`, { accept: "text/event-stream", headers, signal });
        if (response.status === 204) return;
        for await (const event of readEvents(response)) {
          nFailures = 0;
          lastEventId = event.id;
          yield event;
          if (event.event === "state" && isFinal(event.data)) return;
        }
      } catch (error) {
        const mayRecover = error.code === "unreachable" || error.status >= 500 || error.status === 429;
        if (!mayRecover || nFailures >= RETRY_MS.length) throw error;
      }
      await wait(RETRY_MS[Math.min(nFailures++, RETRY_MS.length - 1)], signal);
    }
  }

  async waitForJob(id, { signal, onEvent } = {}) {
    for await (const event of this.events(id, { signal })) onEvent?.(event);
    return this.job(id, { signal });
  }

  webSocket(path, query = {}) {
    const address = this.address(path);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    address.search = new URLSearchParams(query);
    return new WebSocket(address, this.token ? ["viseme", `bearer.${base64url(this.token)}`] : ["viseme"]);
  }
}

function jobPath(id) {
  return `v1/jobs/${encodeURIComponent(id)}`;
}

// The server accepts a token in the bytes of UTF-8; a header can carry these as Latin-1 only.
function latin1(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

function base64url(text) {
  return btoa(latin1(text)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

// crypto.randomUUID exists in secure contexts only, and the page may be opened by plain HTTP.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function transportError(error) {
  if (error instanceof ApiError) return error;
  if (error.name === "AbortError") return new ApiError("canceled", "Canceled.", { cause: error });
  return new ApiError("unreachable", "The server cannot be reached. Is it running?", { cause: error });
}

async function errorOf(response) {
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  const details = { status: response.status, retryAfterS: Number.isFinite(seconds) ? seconds : null };
  let found = null;
  try {
    found = (await response.json()).error;
  } catch {
    // A proxy's page, or a body that broke off: the status is what remains.
  }
  if (typeof found?.message === "string") return new ApiError(String(found.code), found.message, details);
  const text = `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError("bad_answer", `${text}.`, details);
}

async function readBody(response, form) {
  try {
    return await response[form]();
  } catch (error) {
    if (error instanceof SyntaxError) throw new ApiError("bad_answer", "The server's answer is not JSON.", { cause: error });
    throw transportError(error);
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ApiError("bad_answer", "The server's answer is not JSON.", { cause: error });
  }
}

async function* readLines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      yield* lines.map((line) => line.replace(/\r$/, ""));
    }
    if (rest) yield rest;
  } catch (error) {
    throw transportError(error);
  } finally {
    reader.cancel().catch(() => {}); // a consumer that leaves early ends the request; a broken one is reported above
  }
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
async function* readEvents(response) {
  let id = "", event = "message", data = [];
  for await (const line of readLines(response)) {
    if (line === "") {
      if (data.length) yield { id, event, data: parse(data.join("\n")) };
      event = "message";
      data = [];
      continue;
    }
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/.exec(line);
    if (field === "id") id = value ?? "";
    else if (field === "event") event = value ?? "";
    else if (field === "data") data.push(value ?? "");
  }
}

function wait(ms, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(new ApiError("canceled", "Canceled."));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}
