// Where the audio of a lip sync comes from: a file, the microphone, or a text that the server speaks.
//
//     const source = speechSource({ api, onError(error) });
//     source.root
//     await source.audio(signal)   -> File; throws Error if it is missing
//     source.hide() with the view;  source.refresh() at first, and once the token has changed

import { AudioRecorder, microphoneProblem } from "./audio_recorder.js";
import { dropZone, element, field } from "./components.js";

const MAX_RECORDING_S = 120;
const KINDS = { file: "File", microphone: "Microphone", text: "Text" };
const SAMPLE_TEXT = "Good morning. This face says whatever you type.";

export function speechSource({ api, onError }) {
  const files = { file: null, microphone: null, text: null };
  let spoken = ""; // what files.text says
  let kind = "file", recorder = null, timer = null, address = null;

  const preview = element("audio", { controls: true, "aria-label": "Audio that was chosen", "data-testid": "audio-preview", hidden: true });
  const undecodable = element("p", { class: "notice warning", role: "status", "data-testid": "audio-undecodable", hidden: true });
  preview.addEventListener("error", () => {
    if (preview.hidden) return; // another file was chosen
    preview.hidden = true;
    undecodable.textContent = `This browser cannot play ${files[kind].name}. It may be damaged, or of a format that only the server reads.`;
    undecodable.hidden = false;
  });
  const zone = dropZone({
    label: "Audio file", hint: "wav, mp3, m4a or ogg: drop it here, or choose it", accept: "audio/*,video/*,.m4a,.ogg,.opus",
    testid: "audio-input", onFile: (file) => keep("file", file),
  });

  const record = element("button", { type: "button", "data-testid": "record" }, "Record");
  const recorded = element("span", { class: "hint", role: "status" }, microphoneProblem() ?? "At most two minutes.");
  record.disabled = microphoneProblem() !== null;

  const text = element("textarea", { rows: 4, "data-testid": "speech-text", maxlength: 2000 });
  text.value = SAMPLE_TEXT;
  const language = element("select", { "data-testid": "speech-language" });
  const rate = element("input", { type: "number", min: 80, max: 450, step: 5, value: 175, inputmode: "numeric" });
  const listen = element("button", { type: "button", class: "small", "data-testid": "listen" }, "Listen");
  const textHint = element("p", { class: "hint", role: "status" });

  const panels = {
    file: element("div", { class: "stack" }, zone.root),
    microphone: element("div", { class: "stack" }, element("div", { class: "row" }, record, recorded)),
    text: element("div", { class: "stack" }, field("What it says", text),
      element("div", { class: "halves" }, field("Language", language), field("Words a minute", rate)),
      element("div", { class: "row" }, listen, textHint)),
  };
  const radios = Object.entries(KINDS).map(([value, label]) => element("label", { class: "choice" },
    element("input", { type: "radio", name: "speech-source", value, checked: value === kind, "data-testid": `audio-${value}`, onchange: () => choose(value) }), label));
  const root = element("fieldset", { class: "card" }, element("legend", { class: "card-title" }, "Audio"),
    element("div", { class: "choices" }, radios), Object.values(panels), preview, undecodable);

  function choose(value) {
    if (recorder) finishRecording().catch(onError);
    kind = value;
    for (const [name, panel] of Object.entries(panels)) panel.hidden = name !== kind;
    showPreview();
  }

  function keep(name, file) {
    files[name] = file;
    if (name === kind) showPreview();
  }

  function showPreview() {
    if (address) URL.revokeObjectURL(address);
    const file = files[kind];
    preview.hidden = !file;
    undecodable.hidden = true;
    address = file ? URL.createObjectURL(file) : null;
    if (address) preview.src = address;
    else preview.removeAttribute("src");
  }

  async function startRecording() {
    record.disabled = true;
    try {
      recorder = await AudioRecorder.open();
      keep("microphone", null);
      record.textContent = "Stop";
      timer = setInterval(() => {
        recorded.textContent = `Recording: ${Math.floor(recorder.seconds)} s`;
        if (recorder.seconds >= MAX_RECORDING_S) finishRecording().catch(onError);
      }, 250);
    } catch (error) {
      onError(error);
    } finally {
      record.disabled = false;
    }
  }

  async function finishRecording() {
    const ended = recorder;
    recorder = null;
    clearInterval(timer);
    record.textContent = "Record again";
    recorded.textContent = `${ended.seconds.toFixed(1)} s recorded.`;
    keep("microphone", await ended.stop());
  }

  async function speak(signal) {
    if (!text.value.trim()) throw new Error("There is no text to speak.");
    if (!rate.checkValidity()) throw new Error(`Words a minute: ${rate.validationMessage}`);
    const wanted = { text: text.value, language: language.value || "en", rate: Number(rate.value) };
    const key = JSON.stringify(wanted);
    if (files.text && spoken === key) return files.text;
    const blob = await api.blob("v1/speech", { body: wanted, accept: "audio/wav", signal });
    spoken = key;
    keep("text", new File([blob], "text.wav", { type: "audio/wav" }));
    return files.text;
  }

  async function refresh() {
    try {
      const found = await api.json("v1/speech");
      const names = new Intl.DisplayNames(["en"], { type: "language" });
      const before = language.value || "en";
      language.replaceChildren(...found.languages.map((code) => element("option", { value: code, selected: code === before }, names.of(code))));
      text.maxLength = found.max_characters;
      Object.assign(rate, { min: found.rate.min, max: found.rate.max });
      textHint.textContent = found.available ? `Spoken by ${found.synthesizer}, on the server.`
        : `This server cannot speak: ${found.synthesizer} is not installed on it.`;
      listen.disabled = !found.available;
    } catch (error) {
      textHint.textContent = error.message;
    }
  }

  async function audio(signal) {
    if (kind === "text") return speak(signal);
    if (recorder) await finishRecording();
    if (!files[kind]) throw new Error(kind === "file" ? "Choose an audio file." : "Record some audio first.");
    return files[kind];
  }

  record.addEventListener("click", () => (recorder ? finishRecording() : startRecording()).catch(onError));
  listen.addEventListener("click", async () => {
    listen.disabled = true;
    try {
      await speak();
      await preview.play();
    } catch (error) {
      onError(error);
    } finally {
      listen.disabled = false;
    }
  });
  choose("file");

  return {
    root,
    audio,
    refresh,
    hide() {
      preview.pause();
      if (recorder) finishRecording().catch(onError);
    },
  };
}
