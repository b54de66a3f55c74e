// Where a person writes: toggles, the text, chips.

import { h, icon } from "/static/dom.js";
import { t } from "/static/words.js";

const TALLEST = 132; // pixels
const SEND = "M4 12l16-8-6 16-2.500-6.500z";

export class Composer {
  constructor(chat) {
    this.chat = chat;
    this.group = chat.kind === "group";
    this.text = h("textarea", {
      rows: "1",
      "aria-label": t("message"),
      "data-testid": "composer",
      autocomplete: "off",
      onkeydown: (event) => this.key(event),
      oninput: () => this.grow(),
    });
    this.bot = this.toggle("mentionBot", true);
    this.all = this.toggle("mentionAll", false);
    const send = h("button", { type: "submit", class: "send", "aria-label": t("send"), title: t("send"), "data-testid": "send" }, icon(SEND));
    const box = h("div", { class: "box" }, this.group ? [this.bot, this.all] : [], this.text, send);
    const chips = h("div", { class: "chips", role: "group" }, t("chips").map((words) => h("button", { type: "button", class: "chip", "data-testid": "chip", onclick: () => this.send(words) }, words)));
    this.node = h("form", { class: "composer", onsubmit: (event) => this.submit(event) }, chips, box);
  }

  toggle(name, pressed) {
    const node = h("button", { type: "button", class: "at", "aria-pressed": String(pressed), title: t(`${name}Hint`), "data-testid": name }, t(name));
    node.addEventListener("click", () => {
      node.setAttribute("aria-pressed", String(node.getAttribute("aria-pressed") !== "true"));
      this.text.focus();
    });
    return node;
  }

  redraw(name) {
    this.text.placeholder = t(this.group ? "placeholderGroup" : "placeholderPrivate", { name });
  }

  // Enter sends, unless an input method is still composing.
  key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.submit(event);
  }

  grow() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight, TALLEST)}px`;
    this.text.classList.toggle("tall", this.text.scrollHeight > TALLEST);
  }

  submit(event) {
    event.preventDefault();
    const words = this.text.value.trim();
    if (!words) return;
    this.text.value = "";
    this.grow();
    this.send(words);
  }

  // Words that could not be sent come back into an empty composer.
  async send(words) {
    const on = (node) => this.group && node.getAttribute("aria-pressed") === "true";
    this.chat.pinned = true;
    const sent = await this.chat.app.say(this.chat.place.key, words, on(this.bot), on(this.all));
    if (sent || this.text.value) return;
    this.text.value = words;
    this.grow();
  }
}
