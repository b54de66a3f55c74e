// Lets a growing text run smoothly after what has arrived, as a typewriter: over as long a
// time as passed since the text before, because the next one takes about as long to come.

import { renderInto } from "/static/markdown.js";

const SOONEST = 450; // milliseconds in which what is missing gets shown, at least
const WIDER = 1.5; // and at most so many times those before, so that a pause slows nothing
const FRAME = 33;

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Typer {
  constructor(node) {
    this.node = node;
    this.target = "";
    this.shown = 0;
    this.last = 0;
    this.came = 0;
    this.over = SOONEST;
    this.speed = 0;
    this.running = false;
  }

  // `grows`: more will come, or has just come, so it may run.
  set(text, grows) {
    const follows = text.startsWith(this.target.slice(0, this.shown));
    if (text !== this.target) this.tune(text.length);
    this.target = text;
    if (!grows || !follows || calm.matches || document.hidden) this.show(text.length);
    else if (!this.running && this.shown < text.length) this.run();
  }

  // Characters a millisecond, once a text of this length has come.
  tune(length) {
    const now = performance.now();
    const gap = this.came ? now - this.came : 0;
    this.came = now;
    this.over = Math.min(Math.max(gap, SOONEST), this.over * WIDER);
    this.speed = (length - this.shown) / this.over;
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
    const more = Math.floor((now - this.last) * this.speed);
    if (more < 1) return;
    this.last += more / this.speed;
    let to = Math.min(this.target.length, this.shown + more);
    if (/[\ud800-\udbff]/.test(this.target[to - 1])) to += 1;
    this.show(to);
  }

  show(length) {
    this.shown = length;
    renderInto(this.node, this.target.slice(0, length));
  }
}
