// Short words at the lower edge, which go by themselves.

import { h } from "/static/dom.js";

const STAYS = 3200;

export function toast(text, kind = "info") {
  if (!text) return;
  const box = document.getElementById("toasts");
  const node = h("div", { class: `toast ${kind === "error" || kind === "warning" ? "bad" : ""}`, "data-testid": "toast" }, text);
  box.append(node);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => node.remove(), STAYS);
}
