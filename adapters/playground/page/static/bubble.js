// One message as a node that follows its changes.

import { arrange, h, setText } from "/static/dom.js";
import { Typer } from "/static/typer.js";
import { t } from "/static/words.js";

const FOLD_AT = 1500; // characters of a person's message that are shown at once
const MARKS = { Get: "👌", OK: "👌", DONE: "✅", THUMBSUP: "👍", OnIt: "👀", Typing: "⌨️", ERROR: "❌" };

export class BubbleNode {
  // actions: press(bubble, block), recall(bubble); people: key → {name}
  constructor(bubble, context) {
    this.context = context;
    this.parts = new Map();
    this.meta = h("div", { class: "meta" });
    this.quote = h("div", { class: "reply-to" });
    this.body = h("div", { class: "body" });
    this.marks = h("div", { class: "marks" });
    this.content = h("div", { class: "content" }, this.meta, this.quote, this.body, this.marks);
    this.avatar = h("span", { class: "avatar", "aria-hidden": "true" });
    this.node = h("article", { "data-testid": "bubble", "data-id": bubble.id }, this.avatar, this.content);
    this.update(bubble);
  }

  update(bubble) {
    this.bubble = bubble;
    const bot = bubble.author === "bot";
    const mine = bubble.author === this.context.me();
    this.node.className = ["bubble", bot ? "bot" : "human", mine ? "mine" : "", bubble.kind, bubble.streaming ? "streaming" : "", bubble.recalled ? "recalled" : ""].join(" ");
    this.node.dataset.author = bubble.author;
    this.node.dataset.streaming = String(bubble.streaming);
    this.node.setAttribute("aria-busy", String(bubble.streaming));
    this.node.setAttribute("aria-label", bubble.name);
    setText(this.avatar, bot ? "鹊" : bubble.name.slice(0, 1));
    this.avatar.dataset.who = bubble.author;
    this.drawMeta(bubble, mine);
    if (bubble.recalled) this.drawRecalled(bubble);
    else this.drawBody(bubble, bot);
    this.drawQuote(bubble);
    arrange(this.marks, bubble.recalled ? [] : this.markNodes(bubble, bot));
  }

  drawMeta(bubble, mine) {
    const time = new Date(bubble.at * 1000);
    const words = time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
    const nodes = [h("span", { class: "name" }, bubble.name), h("time", { datetime: time.toISOString() }, words)];
    if (mine && !bubble.recalled && this.context.canRecall) {
      nodes.push(h("button", { type: "button", class: "quiet", "data-testid": "recall", onclick: () => this.context.recall(this.bubble) }, t("recall")));
    }
    this.meta.replaceChildren(...nodes);
  }

  drawQuote(bubble) {
    const original = bubble.reply_to ? this.context.find(bubble.reply_to) : null;
    this.quote.hidden = !original || bubble.recalled;
    if (!original) return;
    const text = original.recalled ? "…" : original.text.replace(/\s+/g, " ").slice(0, 60);
    setText(this.quote, t("replyTo", { name: original.name, text }));
  }

  drawRecalled(bubble) {
    this.parts.clear();
    arrange(this.body, [h("p", { class: "gone" }, t("recalled", { name: bubble.name }))]);
  }

  markNodes(bubble, bot) {
    const nodes = bubble.reactions.map((name) => h("span", { class: "mark", title: name, "data-testid": "reaction" }, MARKS[name] ?? name));
    if (bot && bubble.pings.length) {
      const names = bubble.pings.map((who) => (who === "all" ? t("everybody") : this.context.nameOf(who)));
      nodes.push(h("span", { class: "ping", "data-testid": "ping" }, t("pinged", { names: names.join("、") })));
    }
    return nodes;
  }

  // The nodes of the blocks, each kept for as long as its block is there.
  drawBody(bubble, bot) {
    const counts = {};
    const used = new Map();
    const nodes = [];
    const buttons = [];
    for (const block of bubble.blocks) {
      counts[block.kind] = (counts[block.kind] ?? 0) + 1;
      const key = block.id ? `${block.kind}:${block.id}` : `${block.kind}#${counts[block.kind]}`;
      const part = this.parts.get(key) ?? makers[block.kind](this, bot);
      part.update(block, bubble);
      used.set(key, part);
      (block.kind === "button" ? buttons : nodes).push(part.node);
    }
    this.parts = used;
    if (buttons.length) {
      this.actions ??= h("div", { class: "actions" });
      arrange(this.actions, buttons);
      nodes.push(this.actions);
    }
    arrange(this.body, nodes);
  }
}

const makers = {
  markdown: (owner, bot) => (bot ? answerPart(owner) : wordsPart()),
  small: () => smallPart(),
  panel: (owner) => panelPart(owner),
  button: (owner) => buttonPart(owner),
  divider: () => ({ node: h("hr"), update() {} }),
};

function answerPart(owner) {
  const node = h("div", { class: "md", "data-testid": "markdown" });
  const typer = new Typer(node);
  let grew = false;
  const update = (block, bubble) => {
    grew = grew || bubble.streaming;
    node.classList.toggle("growing", bubble.streaming);
    typer.set(block.text, grew && !owner.context.resyncing());
  };
  return { node, update };
}

function wordsPart() {
  const text = h("div", { class: "words" });
  const more = h("button", { type: "button", class: "quiet more", onclick: () => toggle() });
  const node = h("div", {}, text, more);
  let whole = "";
  let open = false;
  const draw = () => {
    const long = whole.length > FOLD_AT;
    setText(text, long && !open ? `${whole.slice(0, FOLD_AT)}…` : whole);
    more.hidden = !long;
    setText(more, t(open ? "less" : "more"));
  };
  const toggle = () => {
    open = !open;
    draw();
  };
  const update = (block) => {
    whole = block.text;
    draw();
  };
  return { node, update };
}

function smallPart() {
  const node = h("p", { class: "small", "data-testid": "small" });
  const update = (block, bubble) => {
    setText(node, block.text);
    node.classList.toggle("waiting", bubble.streaming && !bubble.text);
  };
  return { node, update };
}

function panelPart(owner) {
  const title = h("summary", { "data-testid": "panel" });
  const inner = h("div", { class: "md" });
  const typer = new Typer(inner);
  const node = h("details", { class: "panel" }, title, inner);
  const update = (block, bubble) => {
    setText(title, block.title || t("thinking"));
    typer.set(block.text, bubble.streaming && !owner.context.resyncing());
  };
  return { node, update };
}

function buttonPart(owner) {
  const node = h("button", { type: "button", class: "action", "data-testid": "button" });
  let current = null;
  node.addEventListener("click", async () => {
    node.disabled = true;
    await owner.context.press(owner.bubble, current);
    node.disabled = false;
  });
  const update = (block) => {
    current = block;
    setText(node, block.text);
    node.dataset.block = block.id;
  };
  return { node, update };
}
