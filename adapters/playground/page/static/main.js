// What the page knows, and who draws it.

import { Bar, useTheme } from "/static/bar.js";
import { Chat } from "/static/chat.js";
import { h } from "/static/dom.js";
import { Socket } from "/static/socket.js";
import { toast } from "/static/toast.js";
import { lang, setLang, t } from "/static/words.js";

const PANELS = [["feishu", "group"], ["dingtalk", "group"], ["feishu", "private"], ["dingtalk", "private"]];

class App {
  constructor(root) {
    this.root = root;
    this.me = sessionStorage.getItem("queqiao.me") ?? "p0";
    this.people = new Map();
    this.places = new Map();
    this.bubbles = new Map();
    this.links = {};
    this.faults = { offered: [], on: {}, left: {} };
    this.health = null; // {lamp, running, problems}, or null where no bot is employed
    this.trails = {};
    this.real = false;
    this.known = false;
    this.resyncing = false;
    this.front = 0;
    this.build();
    this.socket = new Socket({
      hello: (value) => this.hello(value),
      changes: (list) => list.forEach((change) => this.change(change)),
      linked: (linked) => (this.offline.hidden = linked),
    });
  }

  build() {
    this.bar?.gone.abort();
    this.chats = PANELS.map(([platform, kind]) => new Chat(this, platform, kind));
    this.bar = new Bar(this);
    this.offline = h("div", { class: "offline", role: "alert", hidden: true }, t("offline"));
    this.tabs = h("div", { class: "tabs", role: "tablist" }, this.chats.map((chat, at) => this.tab(chat, at)));
    this.grid = h("main", { class: "grid" }, this.chats.map((chat) => chat.node));
    const stage = h("div", { class: "stage" }, this.grid, this.bar.faults.node);
    this.root.replaceChildren(this.bar.node, this.offline, this.tabs, stage);
    this.show(this.front);
  }

  rebuild() {
    const open = this.bar.faults.isOpen;
    this.build();
    if (this.known) this.redraw();
    this.bar.faults.open(open);
  }

  tab(chat, at) {
    return h("button", { type: "button", role: "tab", class: chat.platform, "aria-controls": chat.id, "data-testid": `tab-${chat.id}`, onclick: () => this.show(at) },
      h("i", {}), h("span", {}), h("b", { class: "count", hidden: true }));
  }

  // Which chat stands in front where there is room for one.
  show(at) {
    this.front = at;
    [...this.tabs.children].forEach((tab, number) => tab.setAttribute("aria-selected", String(number === at)));
    this.chats.forEach((chat, number) => chat.node.classList.toggle("front", number === at));
    this.chats[at].unread = 0;
    this.drawTabs();
    if (this.known) this.chats[at].toEnd();
  }

  solo(chat) {
    const alone = this.grid.classList.contains("alone") && chat.node.classList.contains("front");
    this.show(this.chats.indexOf(chat));
    this.grid.classList.toggle("alone", !alone);
    this.chats.forEach((one) => one.node.querySelector(".solo").setAttribute("aria-label", t(alone ? "expand" : "shrink")));
    chat.toEnd();
  }

  drawTabs() {
    this.chats.forEach((chat, at) => {
      const [, name, count] = this.tabs.children[at].children;
      name.textContent = chat.kind === "group" ? this.places.get(`${chat.platform}:group`)?.title ?? "" : `${t(chat.platform)} · ${t("brand")}`;
      count.hidden = !chat.unread;
      count.textContent = String(chat.unread);
    });
  }

  // from the server ------------------------------------------------------

  hello(value) {
    this.real = value.real;
    this.people = new Map(value.people.map((person) => [person.key, person]));
    this.places = new Map(value.chats.map((place) => [place.key, place]));
    this.bubbles = new Map(value.bubbles.map((bubble) => [`${bubble.chat} ${bubble.id}`, bubble]));
    this.links = value.links;
    this.faults = value.faults;
    this.health = value.health;
    this.trails = value.trails;
    if (!this.people.has(this.me)) this.me = [...this.people.keys()][0];
    this.known = true;
    this.redraw();
  }

  redraw() {
    this.resyncing = true;
    this.bar.redraw();
    for (const chat of this.chats) chat.redraw();
    this.drawTabs();
    this.resyncing = false;
  }

  change({ type, value }) {
    if (type === "bubble") this.bubble(value);
    else if (type === "link") this.link(value);
    else if (type === "trail") this.trail(value);
    else if (type === "health") this.tell(value);
    else if (type === "faults") {
      this.faults = value;
      this.bar.faults.draw();
    }
  }

  link({ platform, state }) {
    this.links[platform] = state;
    this.chats.forEach((chat) => chat.drawLink());
  }

  trail({ chat, turns }) {
    this.trails[chat] = turns;
    this.chats.find((one) => one.place.key === chat)?.drawTrail();
  }

  tell(health) {
    this.health = health;
    this.bar.drawHealth();
    this.chats.forEach((chat) => chat.drawTrail());
  }

  bubble(value) {
    this.bubbles.set(`${value.chat} ${value.id}`, value);
    const at = this.chats.findIndex((chat) => chat.place.key === value.chat);
    if (at < 0) return;
    const fresh = this.chats[at].put(value);
    if (fresh && at !== this.front && value.author !== this.me) {
      this.chats[at].unread += 1;
      this.drawTabs();
    }
  }

  // what chats ask -----------------------------------------------------------

  nameOf(key) {
    return this.people.get(key)?.name ?? key;
  }

  bubblesOf(key) {
    return [...this.bubbles.values()].filter((bubble) => bubble.chat === key);
  }

  speakAs(key) {
    this.me = key;
    sessionStorage.setItem("queqiao.me", key);
    this.redraw();
  }

  async ask(order) {
    const answer = await this.socket.ask(order);
    if (answer.lost) toast(t("notSent"), "error");
    else if (answer.error) toast(t("failed", { why: answer.error }), "error");
    return answer;
  }

  async say(chat, text, bot, all) {
    const answer = await this.ask({ do: "say", chat, person: this.me, text, bot, all });
    return !answer.lost && !answer.error;
  }

  async press(bubble, block) {
    const answer = await this.ask({ do: "press", chat: bubble.chat, bubble: bubble.id, block: block.id, person: this.me });
    const shown = answer.toast;
    if (shown?.error) toast(t("pressFailed"), "error");
    else if (shown?.text) toast(shown.text, shown.kind);
  }

  recall(bubble) {
    return this.ask({ do: "recall", chat: bubble.chat, bubble: bubble.id, person: this.me });
  }
}

useTheme();
setLang(lang());
new App(document.getElementById("app"));
