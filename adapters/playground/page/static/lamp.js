// How the bot is: a lamp with words, and what troubles it.

import { h } from "/static/dom.js";
import { lang, t } from "/static/words.js";

const CHINESE = /[\u3400-\u9fff]/;

export class Lamp {
  constructor(app) {
    this.app = app;
    this.words = h("span", { class: "wide" });
    this.lamp = h("button", { type: "button", class: "ghost lamp", "aria-expanded": "false", "data-testid": "lamp", onclick: () => this.open(this.list.hidden) }, h("i", {}), this.words);
    this.list = h("div", { class: "health", role: "dialog", "aria-label": t("health"), hidden: true, "data-testid": "health" });
    this.node = h("div", { class: "lamp-place", hidden: true }, this.lamp, this.list);
  }

  open(wanted) {
    this.list.hidden = !wanted;
    this.lamp.setAttribute("aria-expanded", String(wanted));
  }

  clickedAway(target) {
    if (!this.node.contains(target) && target.isConnected) this.open(false);
  }

  draw() {
    const { health } = this.app;
    this.node.hidden = !health;
    if (!health) return;
    const words = t(`lamp.${health.lamp}`);
    this.lamp.dataset.lamp = health.lamp;
    this.lamp.setAttribute("aria-label", `${t("health")}: ${words}`);
    this.lamp.title = words;
    this.words.textContent = words;
    const problems = health.problems.map((problem) => h("li", {}, side(problem)));
    this.list.replaceChildren(h("b", {}, words), h("p", {}, t(`lamp.${health.lamp}.hint`)), problems.length ? h("ul", {}, ...problems) : "");
  }
}

// The part of "中文 / English" that is in the page's language; a name in front of both stays.
export function side(sentence) {
  const [, name, words] = sentence.match(/^([\w.-]+: )?(.*)$/s);
  for (const found of words.matchAll(/\s*\/\s+/g)) {
    const [left, right] = [words.slice(0, found.index), words.slice(found.index + found[0].length)];
    if (CHINESE.test(left) && !CHINESE.test(right)) return (name ?? "") + (lang() === "zh" ? left : right);
  }
  return sentence;
}
