// What jobs are called on the page, in words that need no document.
//
//     stateOf(job)        -> { text, kind }: kind is the class of a badge
//     stageOf(job)        -> "Moving the lips", of a running job
//     titleOf(job)        -> "Lip sync: face.mp4, speech.wav"; names of files are known of jobs of this page only
//     describeError(error) -> "No face was found. clip.mp4: no face in any of its 75 frames"
//     remember(id, { task, names })   keep what this page submitted; the server's list has no names

const STATES = {
  queued: { text: "Waiting", kind: "busy" },
  starting: { text: "Starting", kind: "busy" },
  processing: { text: "Running", kind: "busy" },
  succeeded: { text: "Done", kind: "good" },
  failed: { text: "Failed", kind: "bad" },
  canceled: { text: "Canceled", kind: "warn" },
};
const STAGES = { starting: "Starting", reading: "Reading", syncing: "Moving the lips" };
const TASKS = { lipread: "Lip reading", lipsync: "Lip sync", unknown: "Job" };
const ERRORS = {
  access_denied: "The server was not allowed to do that.",
  deadline_exceeded: "It took too long.",
  internal_error: "The server made a mistake.",
  invalid_request: "The server cannot use these options.",
  media_too_large: "A file is too large.",
  no_audio: "A file has no audio.",
  no_face_found: "No face was found.",
  object_not_found: "A file was not found.",
  out_of_memory: "The server ran out of memory.",
  storage_full: "The server has no space for more files.",
  storage_unavailable: "The server cannot reach its storage.",
  unsupported_media: "A file is not a video, image or audio that can be used.",
  worker_died: "The process that did the work ended early.",
};
const submitted = new Map();

export function stateOf(job) {
  return STATES[job.state] ?? { text: String(job.state), kind: "" };
}

export function stageOf({ stage }) {
  return STAGES[stage] ?? String(stage);
}

export function remember(id, { task, names }) {
  submitted.set(id, { task, names });
}

export function titleOf(job) {
  const own = submitted.get(job.id);
  const task = TASKS[own?.task ?? job.task] ?? String(job.task);
  return own?.names?.length ? `${task}: ${own.names.join(", ")}` : task;
}

export function describeError({ code, message }) {
  const words = ERRORS[code];
  return words ? `${words} ${message}` : message;
}
