// One chat: head, messages, chips and the composer.

import { BubbleNode } from "/static/bubble.js";
import { Composer } from "/static/composer.js";
import { h, icon } from "/static/dom.js";
import { Trail } from "/static/trail.js";
import { t } from "/static/words.js";

const NEAR = 80; // pixels from the end that still count as being at the end
const EXPAND = "M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5";

export class Chat {
  // place: one of hello's chats (the private ones change with the person)
  constructor(app, platform, kind) {
    this.app = app;
    this.platform = platform;
    this.kind = kind;
    this.id = `${platform}-${kind}`;
    this.nodes = new Map();
    this.threads = new Map();
    this.unread = 0;
    this.build();
  }

  build() {
    this.heading = h("h2", { id: `${this.id}-title` });
    this.sub = h("p", { class: "sub" });
    this.link = h("span", { class: "link", "data-testid": "link" }, h("i", {}), h("span"));
    const solo = h("button", { type: "button", class: "ghost solo", "aria-label": t("expand"), title: t("expand"), onclick: () => this.app.solo(this) }, icon(EXPAND));
    const head = h("header", {}, h("span", { class: "badge", "aria-hidden": "true" }, this.kind === "group" ? "#" : "鹊"), h("div", { class: "titles" }, this.heading, this.sub), this.link, solo);
    this.list = h("div", { class: "list", role: "log", "aria-labelledby": `${this.id}-title`, tabindex: "0" });
    this.inner = h("div", { class: "inner" });
    this.list.append(this.inner);
    this.jump = h("button", { type: "button", class: "jump", hidden: true, onclick: () => this.toEnd() }, `↓ ${t("newMessages")}`);
    this.trail = new Trail(this);
    this.composer = new Composer(this);
    this.node = h("section", { class: `chat ${this.platform} ${this.kind}`, id: this.id, role: "region", "aria-labelledby": `${this.id}-title`, "data-testid": this.id }, head, this.trail.node, h("div", { class: "middle" }, this.list, this.jump), this.composer.node);
    this.pinned = true;
    this.list.addEventListener("scroll", () => this.scrolled());
    new ResizeObserver(() => this.pinned && this.toEnd()).observe(this.inner);
    new ResizeObserver(() => this.pinned && this.toEnd()).observe(this.list);
  }

  get place() {
    const key = this.kind === "group" ? `${this.platform}:group` : `${this.platform}:${this.app.me}`;
    return this.app.places.get(key);
  }

  scrolled() {
    this.pinned = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < NEAR;
    if (this.pinned) this.jump.hidden = true;
  }

  toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
    this.jump.hidden = true;
  }

  // Everything anew: after hello, and when another person takes the keyboard.
  redraw() {
    const place = this.place;
    this.nodes.clear();
    this.threads.clear();
    this.inner.replaceChildren();
    this.heading.textContent = place.title;
    const name = this.app.nameOf(this.app.me);
    this.sub.textContent = `${t(this.platform)} · ${this.kind === "group" ? t("group", { n: place.members }) : t("private", { name })}`;
    this.composer.redraw(name);
    this.empty = h("div", { class: "empty" }, h("b", {}, t(this.kind === "group" ? "emptyGroup" : "emptyPrivate")), h("p", {}, t("emptyHint")));
    this.inner.append(this.empty);
    for (const bubble of this.app.bubblesOf(place.key)) this.put(bubble);
    this.drawLink();
    this.drawTrail();
    this.pinned = true;
    this.toEnd();
  }

  // up, down, or deaf: it looks connected, and nothing comes through.
  drawLink() {
    const state = this.app.links[this.platform];
    const words = t(`link.${state}`);
    this.link.dataset.link = state;
    this.link.title = words;
    this.link.lastChild.textContent = words;
  }

  drawTrail() {
    this.trail.draw(this.app.trails[this.place.key] ?? []);
  }

  put(bubble) {
    this.empty?.remove();
    this.empty = null;
    const known = this.nodes.get(bubble.id);
    if (known) {
      known.update(bubble);
      if (bubble.thread && !this.threads.has(bubble.thread)) this.threads.set(bubble.thread, { root: known.node, box: null });
    } else {
      const fresh = new BubbleNode(bubble, this.context(bubble));
      this.nodes.set(bubble.id, fresh);
      this.home(bubble, fresh).append(fresh.node);
      if (!this.pinned) this.jump.hidden = this.app.resyncing;
    }
    if (bubble.reset) this.markReset(bubble);
    return !known;
  }

  // Where a new bubble goes: to the end, or into its thread's box under the first one.
  home(bubble, fresh) {
    if (!bubble.thread) return this.inner;
    const entry = this.threads.get(bubble.thread);
    if (!entry) {
      this.threads.set(bubble.thread, { root: fresh.node, box: null });
      return this.inner;
    }
    if (!entry.box) {
      entry.box = h("div", { class: "thread", "data-testid": "thread", "aria-label": t("thread") }, h("span", { class: "thread-name" }, t("thread")));
      entry.root.after(entry.box);
    }
    return entry.box;
  }

  markReset(bubble) {
    const { node } = this.nodes.get(bubble.id);
    if (node.nextSibling?.classList?.contains("reset")) return;
    node.after(h("div", { class: "reset", role: "separator", "data-testid": "reset" }, h("span", {}, t("reset"))));
  }

  context(bubble) {
    const { app } = this;
    return {
      me: () => app.me,
      nameOf: (who) => app.nameOf(who),
      resyncing: () => app.resyncing,
      find: (id) => app.bubbles.get(`${bubble.chat} ${id}`),
      canRecall: this.place.recall,
      press: (pressed, block) => app.press(pressed, block),
      recall: (recalled) => app.recall(recalled),
    };
  }
}
