// Lets a growing text run smoothly after what has arrived, as a typewriter.

import { renderInto } from "/static/markdown.js";

const CATCH_UP = 450; // milliseconds in which what is missing gets shown
const FRAME = 33;

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Typer {
  constructor(node) {
    this.node = node;
    this.target = "";
    this.shown = 0;
    this.last = 0;
    this.running = false;
  }

  // `grows`: more will come, or has just come, so it may run.
  set(text, grows) {
    const follows = text.startsWith(this.target.slice(0, this.shown));
    this.target = text;
    if (!grows || !follows || calm.matches || document.hidden) this.show(text.length);
    else if (!this.running && this.shown < text.length) this.run();
  }

  run() {
    this.running = true;
    this.last = performance.now();
    const step = (now) => {
      if (!this.node.isConnected || document.hidden) this.show(this.target.length);
      if (now - this.last >= FRAME) this.advance(now);
      this.running = this.shown < this.target.length;
      if (this.running) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  advance(now) {
    const left = this.target.length - this.shown;
    const part = Math.min(1, (now - this.last) / CATCH_UP);
    this.last = now;
    let to = Math.min(this.target.length, this.shown + Math.max(2, Math.ceil(left * part)));
    if (/[\ud800-\udbff]/.test(this.target[to - 1])) to += 1;
    this.show(to);
  }

  show(length) {
    this.shown = length;
    renderInto(this.node, this.target.slice(0, length));
  }
}
