// The fault panel: a column beside the chats where there is room, else a sheet over them.

import { h } from "/static/dom.js";
import { toast } from "/static/toast.js";
import { t } from "/static/words.js";

const PLATFORMS = ["feishu", "dingtalk"];
const SECTIONS = {
  links: ["cut", "half", "deaf", "leave"],
  platforms: ["refuse", "scope", "lose", "burst", "late"],
  models: ["model-cut", "model-stall", "model-503", "model-402", "model-empty", "slow"],
};
const BESIDE = matchMedia("(min-width: 1180px)");

export class Faults {
  // opener: the button that opens it
  constructor(app, opener) {
    this.app = app;
    this.opener = opener;
    this.node = h("aside", { class: "faults", role: "dialog", "aria-label": t("faultsTitle"), hidden: true, "data-testid": "faults" });
    opener.addEventListener("click", () => this.open(this.node.hidden));
  }

  get isOpen() {
    return !this.node.hidden;
  }

  open(wanted) {
    if (this.node.hidden !== wanted) return;
    this.node.hidden = !wanted;
    this.opener.setAttribute("aria-expanded", String(wanted));
    if (wanted) this.node.querySelector(".fault").focus();
    else if (document.activeElement === document.body) this.opener.focus();
  }

  clickedAway(target) {
    const mine = this.node.contains(target) || this.opener.contains(target);
    if (!mine && target.isConnected && !BESIDE.matches) this.open(false);
  }

  // The panel is built anew for what is offered; later only its states are drawn.
  redraw() {
    this.buttons = new Map();
    const close = h("button", { type: "button", class: "ghost", "aria-label": t("close"), onclick: () => this.open(false) }, "✕");
    const head = h("header", {}, h("div", {}, h("b", {}, t("faultsTitle")), h("p", {}, t("faultsLead"))), close);
    const sections = Object.entries(SECTIONS).map(([name, kinds]) => this.section(name, kinds));
    const clear = this.button("clear", t("fault.clear"), "clear");
    this.node.replaceChildren(head, h("div", { class: "rows" }, this.plug(), ...sections), h("footer", {}, clear));
    this.draw();
  }

  plug() {
    if (!this.offers("kill-back")) return null;
    const buttons = ["kill", "start"].map((name) => this.button(name, t(`fault.${name}`)));
    return h("section", { class: "plug" }, this.button("kill-back", t("fault.kill-back"), "main"), h("p", {}, t("watch.kill-back")), h("div", { class: "pair" }, ...buttons));
  }

  section(name, kinds) {
    const rows = kinds.map((kind) => this.row(kind)).filter(Boolean);
    return rows.length ? h("section", {}, h("h3", {}, t(`faults.${name}`)), ...rows) : null;
  }

  row(kind) {
    const names = this.offers(kind) ? [[kind, t(kind in this.app.faults.on ? "causeOn" : "cause")]] : PLATFORMS.map((name) => [`${kind}-${name}`, t(name)]).filter(([name]) => this.offers(name));
    if (!names.length) return null;
    const label = t(`fault.${kind}`);
    const pills = names.map(([name, words]) => this.button(name, words, "pill", `${label} · ${words}`));
    return h("div", { class: "row" }, h("div", { class: "what" }, h("b", {}, label), h("span", {}, t(`watch.${kind}`))), h("div", { class: "pills" }, ...pills));
  }

  button(name, words, kind = "", label = null) {
    const node = h("button", { type: "button", class: `fault ${kind}`, "aria-label": label, "data-testid": `fault-${name}`, onclick: () => this.cause(name) }, h("span", {}, words), h("i", { class: "left", hidden: true }));
    this.buttons.set(name, node);
    return node;
  }

  offers(name) {
    return this.app.faults.offered?.includes(name);
  }

  draw() {
    const { on, left } = this.app.faults;
    for (const [name, node] of this.buttons) {
      if (name in on) node.setAttribute("aria-pressed", String(on[name]));
      const badge = node.querySelector(".left");
      badge.hidden = !left[name];
      badge.textContent = left[name] ? `×${left[name]}` : "";
      node.title = left[name] ? t("left", { n: left[name] }) : "";
    }
    this.drawPlug();
  }

  drawPlug() {
    const running = this.app.health?.running;
    for (const [name, fits] of [["kill-back", running], ["kill", running], ["start", !running]]) {
      const node = this.buttons.get(name);
      if (node) node.disabled = !fits;
    }
  }

  async cause(name) {
    const answer = await this.app.ask({ do: "fault", name });
    if (answer.error || answer.lost) return;
    if (!(name in this.app.faults.on)) toast(this.done(name));
    if (!BESIDE.matches && !(name in this.app.faults.on)) this.open(false);
  }

  done(name) {
    if (["clear", "kill", "start", "kill-back"].includes(name)) return t(`done.${name}`);
    const kind = name.replace(/-(feishu|dingtalk)$/, "");
    return SECTIONS.links.includes(kind) ? t(`watch.${kind}`) : t("done.other");
  }
}
