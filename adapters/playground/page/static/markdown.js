// Markdown to DOM nodes, block by block. Blocks that did not change keep their nodes, so
// a growing answer costs only its last block.

import { h } from "/static/dom.js";
import { inline } from "/static/inline.js";
import { t } from "/static/words.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const DELIMITERS = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 6;

export function renderInto(node, text) {
  const blocks = split(text);
  const old = node.blocks ?? [];
  let same = 0;
  while (same < blocks.length && same < old.length && old[same].source === blocks[same].source) same += 1;
  for (const gone of old.slice(same)) gone.node.remove();
  const fresh = blocks.slice(same).map((block) => ({ source: block.source, node: build(block, 0) }));
  node.append(...fresh.map((block) => block.node));
  node.blocks = [...old.slice(0, same), ...fresh];
}

// Blocks as {kind, lines, source}.
function split(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [kind, end] = extent(lines, at);
    const own = lines.slice(at, end);
    blocks.push({ kind, lines: own, source: kind + own.join("\n") });
    at = end;
  }
  return blocks;
}

function extent(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return ["code", fenceEnd(lines, at, fence[1])];
  if (HEADING.test(line)) return ["heading", at + 1];
  if (RULE.test(line)) return ["rule", at + 1];
  if (QUOTE.test(line)) return ["quote", run(lines, at, (next) => QUOTE.test(next))];
  if (ITEM.test(line)) return ["list", listEnd(lines, at)];
  if (isTable(lines, at)) return ["table", run(lines, at, (next) => next.includes("|"))];
  return ["paragraph", paragraphEnd(lines, at)];
}

function run(lines, at, belongs) {
  let end = at + 1;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return end;
}

function fenceEnd(lines, at, mark) {
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], mark)) end += 1;
  return Math.min(end + 1, lines.length);
}

function closes(line, mark) {
  const bare = line.trim();
  return bare.length >= mark.length && bare === mark[0].repeat(bare.length);
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DELIMITERS.test(lines[at + 1]) && lines[at + 1].length < 2000;
}

// A list ends at a line that is neither an item of its kind nor indented; one blank line
// between items does not end it.
function listEnd(lines, at) {
  const first = ITEM.exec(lines[at]);
  const belongs = (line) => {
    const item = ITEM.exec(line);
    if (!item || item[1].length > first[1].length + 1) return Boolean(item) || /^\s{2,}\S/.test(line);
    return ordered(item) === ordered(first);
  };
  let end = at + 1;
  while (end < lines.length) {
    if (belongs(lines[end])) end += 1;
    else if (!lines[end].trim() && end + 1 < lines.length && belongs(lines[end + 1])) end += 2;
    else break;
  }
  return end;
}

function ordered(item) {
  return /\d/.test(item[2]);
}

function paragraphEnd(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !begins(lines, end)) end += 1;
  return end;
}

function begins(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line) || isTable(lines, at);
}

const BUILDERS = { code: codeBlock, heading, rule: () => h("hr"), quote, list, table, paragraph };

function build(block, depth) {
  return BUILDERS[block.kind](block.lines, depth);
}

function children(text, depth) {
  if (depth > DEEPEST) return [text];
  return split(text).map((block) => build(block, depth));
}

function paragraph(lines) {
  return h("p", {}, inline(lines.map((line) => line.trim()).join("\n")));
}

function heading(lines) {
  const [, marks, words] = HEADING.exec(lines[0]);
  return h(`h${Math.min(marks.length + 2, 6)}`, { class: `h${marks.length}` }, inline(words));
}

function quote(lines, depth) {
  return h("blockquote", {}, children(lines.map((line) => line.replace(QUOTE, "")).join("\n"), depth + 1));
}

function codeBlock(lines) {
  const [, mark, name] = FENCE.exec(lines[0]);
  const closed = lines.length > 1 && closes(lines.at(-1), mark);
  const words = lines.slice(1, closed ? -1 : undefined).join("\n");
  const copy = h("button", { type: "button", class: "copy", onclick: (event) => copyText(event.currentTarget, words) }, t("copy"));
  return h("div", { class: "code" }, h("div", { class: "code-head" }, h("span", {}, name || "text"), copy), h("pre", { tabindex: "0" }, h("code", {}, words)));
}

async function copyText(button, words) {
  try {
    await navigator.clipboard.writeText(words);
    button.textContent = t("copied");
  } catch {
    return;
  }
  setTimeout(() => (button.textContent = t("copy")), 1500);
}

function list(lines, depth) {
  const first = ITEM.exec(lines[0]);
  const start = parseInt(first[2], 10);
  const node = ordered(first) ? h("ol", start === 1 ? {} : { start: String(start) }) : h("ul");
  for (const item of items(lines, first[1].length)) node.append(listItem(item, depth));
  return node;
}

// The lines of each item of the outermost level, without its mark.
function items(lines, indent) {
  const found = [];
  for (const line of lines) {
    const mark = ITEM.exec(line);
    if (mark && (mark[1].length <= indent + 1 || !found.length)) found.push([mark[3]]);
    else found.at(-1).push(line);
  }
  return found;
}

function listItem([first, ...rest], depth) {
  const task = /^\[([ xX])\]\s+(.*)$/.exec(first);
  const words = task ? task[2] : first;
  const box = task ? [h("span", { class: "task", "aria-hidden": "true" }, task[1] === " " ? "☐" : "☑")] : [];
  const smallest = Math.min(...rest.filter((line) => line.trim()).map((line) => /^\s*/.exec(line)[0].length), 99);
  const inner = rest.map((line) => line.slice(smallest)).join("\n");
  return h("li", task ? { class: "has-task" } : {}, box, inline(words), children(inner, depth + 1));
}

function table(lines) {
  const aligns = cells(lines[1]).map((cell) => (/^:-+:$/.test(cell) ? "center" : /-:$/.test(cell) ? "right" : "left"));
  const row = (line, tag) => {
    const found = cells(line);
    return h("tr", {}, aligns.map((align, at) => h(tag, { class: `to-${align}` }, inline(found[at] ?? ""))));
  };
  const body = lines.slice(2).map((line) => row(line, "td"));
  return h("div", { class: "table", tabindex: "0" }, h("table", {}, h("thead", {}, row(lines[0], "th")), h("tbody", {}, body)));
}

function cells(line) {
  const bare = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return bare.split(/(?<!\\)\|/).slice(0, 60).map((cell) => cell.trim().replaceAll("\\|", "|"));
}
