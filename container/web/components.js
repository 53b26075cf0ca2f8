// What several views are built from. Text goes in as text nodes: no function here takes HTML.
//
//     element("button", { class: "primary", "data-testid": "start", onclick: f }, "Start")   -> HTMLElement
//         attributes: names that start with "on" are listeners, true and false set and omit the attribute, a null or
//         undefined value omits it; children: nodes, texts, arrays of them, null.
//     field("Voice", input, "A hint.")        -> <label class="field">
//     dropZone({ label, hint, accept, testid, onFile })   -> { root, input, set(file) }: a file by mouse, drop or keys
//     progressBar(label)                      -> { root, set(percentOrNull, text), hide() }; null: it is not known yet
//     showError(box, error), clearError(box)  `box`: any element; it becomes role="alert" and has data-testid="error"
//                                             if it is made by errorBox()
//     save(blob, name)                        offer a Blob as a download
//     seconds(1.234) -> "1.23 s";  percent(0.931) -> "93 %";  bytes(123456) -> "121 KB"

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function field(label, control, hint) {
  return element("label", { class: "field" }, label, control, hint ? element("span", { class: "hint" }, hint) : null);
}

export function errorBox() {
  return element("p", { class: "notice error", role: "alert", "data-testid": "error", hidden: true });
}

export function showError(box, error) {
  box.classList.add("notice", "error");
  box.setAttribute("role", "alert");
  box.hidden = false;
  const wait = error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
  box.textContent = `${error.message ?? error}${wait}`;
}

export function clearError(box) {
  box.hidden = true;
  box.textContent = "";
}

// A label around a file input, so that keys and screen readers use the input itself.
export function dropZone({ label, hint, accept, testid = "file-input", onFile }) {
  const input = element("input", { type: "file", accept, "data-testid": testid, class: "dropzone-input" });
  const name = element("span", { class: "dropzone-name" }, hint ?? "");
  const root = element("label", { class: "dropzone" }, element("strong", {}, label), name, input);
  const set = (file) => {
    name.textContent = file ? `${file.name} · ${bytes(file.size)}` : hint ?? "";
    root.classList.toggle("is-filled", Boolean(file));
    onFile(file ?? null);
  };
  input.addEventListener("change", () => { if (input.files.length) set(input.files[0]); });
  let depth = 0; // dragenter and dragleave are sent for each child
  const mark = (change) => {
    depth = change === 0 ? 0 : Math.max(depth + change, 0);
    root.classList.toggle("is-over", depth > 0);
  };
  root.addEventListener("dragenter", (event) => { event.preventDefault(); mark(1); });
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("dragleave", () => mark(-1));
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(0);
    const [file] = event.dataTransfer.files;
    if (file) set(file);
  });
  return { root, input, set };
}

export function progressBar(label) {
  const bar = element("progress", { max: 100, "aria-label": label });
  const text = element("span", { class: "progress-text" });
  const root = element("div", { class: "progress", "data-testid": "progress", hidden: true }, bar, text);
  return {
    root,
    set(value, message = "") {
      root.hidden = false;
      if (value === null) bar.removeAttribute("value");
      else bar.value = value;
      text.textContent = message;
    },
    hide() { root.hidden = true; },
  };
}

export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // once the browser has surely begun to read it
}

// Scroll to what is above the view, as an avatar is on a phone when the button of its form is pressed.
export function scrollUpTo(node) {
  if (node.getBoundingClientRect().top < 0) node.scrollIntoView();
}

export function seconds(value) {
  return `${value.toFixed(2)} s`;
}

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  const units = ["KB", "MB", "GB"];
  let value = n / 1024, i = 0;
  while (value >= 1024 && i < units.length - 1) { value /= 1024; i++; }
  return `${value.toFixed(value < 10 ? 1 : 0)} ${units[i]}`;
}
