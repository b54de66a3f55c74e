// The words of the page in the language that was chosen.

import { en } from "/static/en.js";
import { zh } from "/static/zh.js";

const all = { zh, en };
let chosen = localStorage.getItem("queqiao.lang") === "en" ? "en" : "zh";

export function lang() {
  return chosen;
}

export function setLang(next) {
  chosen = next;
  localStorage.setItem("queqiao.lang", next);
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  document.title = t("title");
}

// `otherwise` stands for a key that nobody knows.
export function t(key, values = {}, otherwise = key) {
  const text = all[chosen][key];
  if (typeof text !== "string") return text ?? otherwise;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}
