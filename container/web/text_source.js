// A text that a live avatar speaks, if the server has a synthesiser.
//
//     const source = new TextSource(api, (fields) => ...);   // fields: of the command `say` (docs/live-avatars.md)
//     source.root
//     await source.refresh()            ask the server for its languages; again once the token has changed
//     source.setConnected(isConnected)

import { element, field } from "./components.js";

const HINT = "Start first, then send a text. It is spoken on the server.";

export class TextSource {
  constructor(api, say) {
    this.api = api;
    this.text = element("textarea", { rows: 2, maxlength: 2000, "data-testid": "say-text" });
    this.language = element("select", { "aria-label": "Language of the text", "data-testid": "say-language" });
    this.button = element("button", { type: "button", "data-testid": "say", disabled: true }, "Say");
    this.hint = element("p", { class: "hint", role: "status" }, HINT);
    this.root = element("div", { class: "stack", hidden: true }, field("Text to speak", this.text),
      element("div", { class: "row filter" }, this.button, this.language), this.hint);
    this.button.addEventListener("click", () => {
      const text = this.text.value.trim();
      if (text) say({ text, language: this.language.value });
      else this.text.focus();
    });
  }

  async refresh() {
    if (document.documentElement.dataset.views === "live") return; // a port of older clients has no such route
    try {
      const found = await this.api.json("v1/speech"), names = new Intl.DisplayNames(["en"], { type: "language" });
      const before = this.language.value || "en";
      this.language.replaceChildren(...found.languages.map((code) => (
        element("option", { value: code, selected: code === before }, names.of(code)))));
      this.text.maxLength = found.max_characters;
      this.root.hidden = !found.available;
    } catch {
      this.root.hidden = true; // the list of avatars, which is asked for at the same time, says what is wrong
    }
  }

  setConnected(isConnected) {
    this.button.disabled = !isConnected;
    this.hint.textContent = isConnected ? "Interrupt stops it." : HINT;
  }
}
