// The way of a chat's newest question: a line of dots, and on a click the whole list.

import { arrange, h, icon, setText } from "/static/dom.js";
import { t } from "/static/words.js";

const DOWN = "M6 9.500l6 6 6-6";
const OPEN = ["queued", "running"];
const LOOKS = {
  claimed: "good", closed: "good", killed: "bad", undelivered: "bad", refused: "bad",
  resumed: "warm", retried: "warm", stepped_down: "warm", repeated: "warm", late: "warm",
  stopped: "faint", recalled: "faint",
};
const MINOR = ["started", "decided", "waiting"]; // without words where there is little room

export class Trail {
  constructor(chat) {
    this.chat = chat;
    this.nodes = new Map();
    this.turns = [];
    this.steps = h("ol", { class: "steps", "data-testid": "steps" });
    this.line = h("button", { type: "button", class: "line", "aria-expanded": "false", "aria-label": t("trail"), title: t("trailHint"), "data-testid": "trail", onclick: () => this.open(this.list.hidden) }, this.steps, icon(DOWN));
    this.list = h("div", { class: "story", hidden: true, "data-testid": "story" });
    this.node = h("div", { class: "trail", hidden: true }, this.line, this.list);
    new ResizeObserver(() => this.toEnd()).observe(this.steps);
  }

  open(wanted) {
    this.list.hidden = !wanted;
    this.line.setAttribute("aria-expanded", String(wanted));
    if (wanted) this.drawList();
  }

  clickedAway(target) {
    if (!this.node.contains(target) && target.isConnected) this.open(false);
  }

  // turns: [{id, message, state, moments: [{at, what, detail}]}], the newest one last
  draw(turns) {
    const { health } = this.chat.app;
    this.node.hidden = !health;
    this.turns = turns.filter((turn) => turn.moments.length);
    const newest = this.turns.at(-1);
    const nodes = newest ? newest.moments.map((moment, at) => this.dot(newest, moment, at)) : [this.dot0()];
    arrange(this.steps, nodes);
    const going = newest && OPEN.includes(newest.state);
    this.node.dataset.state = !newest ? "none" : going ? (health?.running ? "going" : "dead") : "over";
    this.toEnd();
    if (!this.list.hidden) this.drawList();
  }

  // The newest moment stays in sight; what is out of sight on the left fades.
  toEnd() {
    this.steps.scrollLeft = this.steps.scrollWidth;
    this.steps.classList.toggle("more", this.steps.scrollLeft > 0);
  }

  dot0() {
    this.nodes.clear();
    return h("li", { class: "nothing" }, t("trailEmpty"));
  }

  // One node for each moment for as long as its turn is the newest.
  dot(turn, moment, at) {
    const key = `${turn.id} ${moment.at} ${moment.what}`;
    let node = this.nodes.get(key);
    if (!node) {
      node = h("li", { "data-what": moment.what }, h("i", {}), h("b", {}), h("span", {}));
      this.nodes.set(key, node);
      if (this.nodes.size > 400) this.nodes = new Map([...this.nodes].slice(-200));
    }
    node.className = `step ${look(moment)}${MINOR.includes(moment.what) ? " minor" : ""}`;
    setText(node.children[1], brief(moment));
    setText(node.children[2], at ? offset(moment.at - turn.moments[0].at) : "");
    node.title = `${long(moment)} ${offset(moment.at - turn.moments[0].at)}`;
    return node;
  }

  drawList() {
    const turns = [...this.turns].reverse();
    const nodes = turns.map((turn) => h("section", {}, h("h4", {}, this.question(turn), h("span", { class: `state ${outcome(turn)}` }, t(`state.${outcome(turn)}`, {}, turn.state))), h("ol", {}, turn.moments.map((moment) => row(turn, moment)))));
    this.list.replaceChildren(...(nodes.length ? nodes : [h("p", {}, t("trailEmpty"))]));
  }

  question(turn) {
    const bubble = this.chat.app.bubbles.get(`${this.chat.place.key} ${turn.message}`);
    return h("b", {}, bubble?.text.replace(/\s+/g, " ").slice(0, 40) || t("aQuestion"));
  }
}

// What was decided says more than that it is over.
function outcome({ state, moments }) {
  if (OPEN.includes(state)) return state;
  const end = moments.findLast(({ what }) => ["decided", "stopped", "recalled", "refused"].includes(what));
  return (end?.what === "decided" ? end.detail : end?.what) || state || "unknown";
}

function row(turn, moment) {
  return h("li", { class: look(moment), "data-what": moment.what }, h("time", {}, offset(moment.at - turn.moments[0].at)), h("i", {}), h("span", {}, long(moment)));
}

function look({ what, detail }) {
  if (what === "closed" && detail && detail !== "delivered") return "warm";
  if (what === "decided" && detail === "failed") return "bad";
  return LOOKS[what] ?? "plain";
}

const count = (detail) => (/^\d+$/.test(detail) ? detail : "");

function brief({ what, detail }) {
  const words = t(`step.${what}`, {}, what);
  return what !== "waiting" && count(detail) ? `${words} ×${detail}` : words;
}

function long({ what, detail }) {
  const words = t(`story.${what}`, {}, what);
  if (what === "waiting" && count(detail)) return t("story.behind", { n: detail });
  if (count(detail)) return `${words} ×${detail}`;
  const parts = detail.split(" → ").map((part) => t(`detail.${part}`, {}, part));
  return detail ? `${words} · ${parts.join(" → ")}` : words;
}

// Seconds since the first moment.
export function offset(seconds) {
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
