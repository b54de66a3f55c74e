// The bar at the top: brand, who speaks, how the bot is, faults, language, theme.

import { h, icon } from "/static/dom.js";
import { Faults } from "/static/faults.js";
import { Lamp } from "/static/lamp.js";
import { lang, setLang, t } from "/static/words.js";

const MOON = "M20 14.500A8 8 0 0 1 9.500 4 8 8 0 1 0 20 14.500z";
const BOLT = "M13 3L5 13.500h6L10 21l8-10.500h-6z";

export class Bar {
  constructor(app) {
    this.app = app;
    this.people = h("div", { class: "people", role: "radiogroup", "aria-label": t("speakAs"), onkeydown: (event) => this.arrows(event) });
    this.model = h("span", { class: "model", "data-testid": "model" });
    this.lamp = new Lamp(app);
    const opener = h("button", { type: "button", class: "ghost", "aria-expanded": "false", "data-testid": "faults-open", title: t("faults") }, icon(BOLT), h("span", { class: "wide" }, t("faults")));
    this.faults = new Faults(app, opener);
    const language = h("button", { type: "button", class: "ghost", "data-testid": "language", onclick: () => this.switchLanguage() }, t("language"));
    const theme = h("button", { type: "button", class: "ghost", "data-testid": "theme", "aria-label": t("theme"), title: t("theme"), onclick: switchTheme }, icon(MOON));
    const brand = h("div", { class: "brand" }, h("img", { src: "/static/icon.svg", alt: "", width: "28", height: "28" }), h("h1", {}, t("brand")), h("span", { class: "tagline" }, t("tagline")), this.model);
    this.node = h("div", { class: "bar" }, brand, this.people, h("div", { class: "tools" }, this.lamp.node, opener, language, theme));
    this.gone = new AbortController();
    const { signal } = this.gone;
    const closable = [this.faults, this.lamp, ...app.chats.map((chat) => chat.trail)];
    document.addEventListener("click", ({ target }) => closable.forEach((one) => one.clickedAway(target)), { signal });
    document.addEventListener("keydown", ({ key }) => key === "Escape" && closable.forEach((one) => one.open(false)), { signal });
  }

  redraw() {
    const { app } = this;
    this.model.textContent = t(app.real ? "real" : "standin");
    this.model.title = t(app.real ? "realHint" : "standinHint");
    this.people.replaceChildren(...[...app.people.values()].map((person, at) => this.person(person, at === 0)));
    this.faults.redraw();
    this.lamp.draw();
  }

  person({ key, name }, admin) {
    const mine = key === this.app.me;
    const label = admin ? `${name}（${t("admin")}）` : name;
    return h("button", { type: "button", role: "radio", "aria-checked": String(mine), "aria-label": label, title: label, tabindex: mine ? "0" : "-1", "data-testid": `person-${key}`, onclick: () => this.app.speakAs(key) },
      h("span", { class: "avatar", "data-who": key, "aria-hidden": "true" }, name.slice(0, 1)), h("span", { class: "wide" }, name));
  }

  arrows(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const keys = [...this.app.people.keys()];
    this.app.speakAs(keys[(keys.indexOf(this.app.me) + step + keys.length) % keys.length]);
    this.people.querySelector("[aria-checked=true]").focus();
  }

  drawHealth() {
    this.lamp.draw();
    this.faults.drawPlug();
  }

  switchLanguage() {
    setLang(lang() === "zh" ? "en" : "zh");
    this.app.rebuild();
  }
}

export function useTheme() {
  const kept = localStorage.getItem("queqiao.theme");
  if (kept) document.documentElement.dataset.theme = kept;
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("queqiao.theme", root.dataset.theme);
}
