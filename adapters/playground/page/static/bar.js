// The bar at the top: brand, who speaks, language, theme, faults.

import { h, icon } from "/static/dom.js";
import { toast } from "/static/toast.js";
import { lang, setLang, t } from "/static/words.js";

const MOON = "M20 14.500A8 8 0 0 1 9.500 4 8 8 0 1 0 20 14.500z";
const BOLT = "M13 3L5 13.500h6L10 21l8-10.500h-6z";
const FAULTS = ["cut-feishu", "cut-dingtalk"];
const MODEL_FAULTS = ["slow", "model-503", "model-402", "model-cut", "model-empty", "clear"];

export class Bar {
  constructor(app) {
    this.app = app;
    this.people = h("div", { class: "people", role: "radiogroup", "aria-label": t("speakAs"), onkeydown: (event) => this.arrows(event) });
    this.model = h("span", { class: "model", "data-testid": "model" });
    this.panel = h("div", { class: "faults", role: "dialog", "aria-label": t("faultsTitle"), hidden: true, "data-testid": "faults" });
    this.opener = h("button", { type: "button", class: "ghost", "aria-expanded": "false", "data-testid": "faults-open", title: t("faults"), onclick: () => this.open(this.panel.hidden) }, icon(BOLT), h("span", { class: "wide" }, t("faults")));
    const language = h("button", { type: "button", class: "ghost", "data-testid": "language", onclick: () => this.switchLanguage() }, t("language"));
    const theme = h("button", { type: "button", class: "ghost", "data-testid": "theme", "aria-label": t("theme"), title: t("theme"), onclick: switchTheme }, icon(MOON));
    const brand = h("div", { class: "brand" }, h("img", { src: "/static/icon.svg", alt: "", width: "28", height: "28" }), h("h1", {}, t("brand")), h("span", { class: "tagline" }, t("tagline")), this.model);
    this.node = h("div", { class: "bar" }, brand, this.people, h("div", { class: "tools" }, this.opener, language, theme), this.panel);
    this.gone = new AbortController();
    const { signal } = this.gone;
    document.addEventListener("click", (event) => this.clickedAway(event), { signal });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.open(false), { signal });
  }

  redraw() {
    const { app } = this;
    this.model.textContent = t(app.real ? "real" : "standin");
    this.model.title = t(app.real ? "realHint" : "standinHint");
    this.people.replaceChildren(...[...app.people.values()].map((person, at) => this.person(person, at === 0)));
    this.drawFaults();
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

  drawFaults() {
    const { app } = this;
    const names = app.faults.model ? [...FAULTS, ...MODEL_FAULTS] : FAULTS;
    const close = h("button", { type: "button", class: "ghost", "aria-label": t("close"), onclick: () => this.open(false) }, "✕");
    const buttons = names.map((name) => h("button", { type: "button", class: `fault ${name}`, "data-testid": `fault-${name}`, "aria-pressed": name in app.faults.on ? String(app.faults.on[name]) : null, onclick: () => this.fault(name) }, t(`fault.${name}`)));
    this.panel.replaceChildren(h("header", {}, h("b", {}, t("faultsTitle")), close), h("p", {}, t("faultsLead")), ...buttons);
  }

  async fault(name) {
    const answer = await this.app.ask({ do: "fault", name });
    if (answer.error || answer.lost || name in this.app.faults.on) return;
    toast(t(name.startsWith("model") ? "faultDone.other" : `faultDone.${name}`));
  }

  open(wanted) {
    if (this.panel.hidden !== wanted) return;
    this.panel.hidden = !wanted;
    this.opener.setAttribute("aria-expanded", String(wanted));
    if (wanted) this.panel.querySelector(".fault").focus();
    else if (document.activeElement === document.body) this.opener.focus();
  }

  clickedAway(event) {
    if (!this.panel.contains(event.target) && !this.opener.contains(event.target) && event.target.isConnected) this.open(false);
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
