// Inline Markdown to DOM nodes. Searches are bounded, so that no text is slow to show.

const LONGEST = 20000; // characters of one paragraph that are looked at
const REACH = 2000; // how far away a closing mark may stand
const DEEPEST = 6;

const TOKEN = /[\\`*_~[!<h\n]/g;
const AUTOLINK = /https?:\/\/[^\s<>"'`，。；：！？、）】》]+/y;

export function inline(text, depth = 0) {
  if (text.length > LONGEST || depth > DEEPEST) return [text];
  const out = [];
  let plain = "";
  let at = 0;
  const flush = () => {
    if (plain) out.push(plain);
    plain = "";
  };
  while (at < text.length) {
    TOKEN.lastIndex = at;
    const found = TOKEN.exec(text);
    if (!found) break;
    plain += text.slice(at, found.index);
    at = found.index;
    const taken = take(text, at, depth);
    if (taken) {
      flush();
      out.push(...taken.nodes);
      at = taken.end;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  plain += text.slice(at);
  flush();
  return out;
}

function take(text, at, depth) {
  switch (text[at]) {
    case "\n":
      return { nodes: [document.createElement("br")], end: at + 1 };
    case "\\":
      return /[\\`*_~[\]()#+\-.!|<>{}]/.test(text[at + 1] ?? "") ? { nodes: [text[at + 1]], end: at + 2 } : null;
    case "`":
      return code(text, at);
    case "[":
      return link(text, at, depth);
    case "!":
      return text[at + 1] === "[" ? link(text, at + 1, depth) : null;
    case "h":
      return autolink(text, at);
    case "<":
      return /^<br\s*\/?>/i.test(text.slice(at, at + 8)) ? { nodes: [document.createElement("br")], end: text.indexOf(">", at) + 1 } : null;
    default:
      return emphasis(text, at, depth);
  }
}

function element(tag, children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function code(text, at) {
  const fence = /^`+/.exec(text.slice(at, at + 20))[0];
  const close = seek(text, fence, at + fence.length);
  if (close < 0) return null;
  const words = text.slice(at + fence.length, close).replace(/^ (.+) $/s, "$1");
  return { nodes: [element("code", [words])], end: close + fence.length };
}

function seek(text, mark, from) {
  const found = text.slice(from, from + REACH).indexOf(mark);
  return found < 0 ? -1 : from + found;
}

const MARKS = [["***", "strong"], ["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

function emphasis(text, at, depth) {
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, at)) continue;
    const open = at + mark.length;
    if (/\s/.test(text[open] ?? " ")) continue;
    if (mark[0] === "_" && /\w/.test(text[at - 1] ?? "")) continue;
    const close = closing(text, mark, open);
    if (close < 0) continue;
    const inner = inline(text.slice(open, close), depth + 1);
    const node = element(tag, inner);
    return { nodes: [mark === "***" ? element("em", [node]) : node], end: close + mark.length };
  }
  return null;
}

function closing(text, mark, from) {
  let close = seek(text, mark, from + 1);
  const end = from + REACH;
  while (close >= 0 && close < end) {
    const single = mark.length > 1 || (text[close + 1] !== mark && text[close - 1] !== mark);
    const word = mark[0] === "_" && /\w/.test(text[close + mark.length] ?? "");
    if (single && !word && !/\s/.test(text[close - 1])) return close;
    close = seek(text, mark, close + mark.length);
  }
  return -1;
}

const LINK = /\[((?:[^[\]\n\\]|\\.){0,500})\]\(\s*<?([^\s<>()]{1,2000}(?:\([^\s()]{0,200}\)[^\s<>()]{0,200})?)>?(?:\s+"[^"\n]{0,200}")?\s*\)/y;

function link(text, at, depth) {
  LINK.lastIndex = at;
  const found = LINK.exec(text);
  if (!found) return null;
  const label = found[1] || found[2];
  return { nodes: [anchor(found[2], inline(label, depth + 2))], end: LINK.lastIndex };
}

function autolink(text, at) {
  if (/\w/.test(text[at - 1] ?? "")) return null;
  AUTOLINK.lastIndex = at;
  const found = AUTOLINK.exec(text);
  if (!found) return null;
  const url = found[0].replace(/[.,;:!?)\]*_~]+$/, "");
  return { nodes: [anchor(url, [url])], end: at + url.length };
}

// A link only to http(s); anything else stays words.
function anchor(url, children) {
  if (!safe(url)) return element("span", children);
  const node = element("a", children);
  node.href = url;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

function safe(url) {
  try {
    return /^https?:$/.test(new URL(url).protocol);
  } catch {
    return false;
  }
}
