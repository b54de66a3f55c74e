// One WebSocket. It comes back by itself; the server then tells everything anew.

const FIRST_WAIT = 400;
const LONGEST_WAIT = 4000;

export class Socket {
  // handlers: hello(value), changes(list), linked(boolean)
  constructor(handlers) {
    this.handlers = handlers;
    this.waiting = new Map();
    this.next = 1;
    this.wait = FIRST_WAIT;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.socket.addEventListener("message", (event) => this.take(JSON.parse(event.data)));
    this.socket.addEventListener("close", () => this.lost());
  }

  take({ type, value }) {
    if (type === "hello") {
      this.wait = FIRST_WAIT;
      this.handlers.linked(true);
      this.handlers.hello(value);
    } else if (type === "changes") {
      this.handlers.changes(value);
    } else if (type === "done") {
      this.waiting.get(value.ref)?.(value);
      this.waiting.delete(value.ref);
    }
  }

  lost() {
    this.handlers.linked(false);
    for (const answer of this.waiting.values()) answer({ lost: true });
    this.waiting.clear();
    setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(this.wait * 1.6, LONGEST_WAIT);
  }

  // Resolves with {error} or {lost} when it did not work.
  ask(order) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.resolve({ lost: true });
    const ref = this.next++;
    this.socket.send(JSON.stringify({ ...order, ref }));
    return new Promise((resolve) => this.waiting.set(ref, resolve));
  }
}
