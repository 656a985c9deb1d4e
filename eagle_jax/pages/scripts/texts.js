// How texts, terms of U and nearest items are shown. What models wrote comes in as text nodes, never as HTML.

const ENCODERS = { train: "Training encoder", held_out: "Held-out encoder" };

export function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function button(title, action) {
  const made = make("button", { type: "button", class: "quiet" }, title);
  made.addEventListener("click", action);
  return made;
}

export const titled = ({ id, title }) => (title ? `${id}: ${title}` : id);

// Pieces ["same" | "new" | "gone" | "label", text] as paragraphs, one for each label.
export function marked(words) {
  const paragraphs = [];
  const tags = { same: "span", new: "ins", gone: "del" };
  for (const [kind, text] of words) {
    if (kind === "label" || !paragraphs.length) paragraphs.push(make("p", {}));
    const paragraph = paragraphs.at(-1);
    if (paragraph.childNodes.length) paragraph.append(" ");
    paragraph.append(kind === "label" ? make("span", { class: "label" }, `${text}:`) : make(tags[kind], {}, text));
  }
  return paragraphs;
}

export const number = (value) => value.toFixed(3);
export const signed = (value) => (value > 0 ? "+" : "") + number(value);
export const cell = (text, tag = "td", attributes = {}) => make(tag, { class: "number", ...attributes }, text);

export function scrolled(name, heads, rows) {
  const thead = make("thead", {}, ...heads.map((head) => make("tr", {}, ...head)));
  const table = make("table", {}, thead, make("tbody", {}, ...rows));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table);
}

// Every term of U by both encoders; of a text that was made of another one with the change.
export function termTable(name, text) {
  const parts = text.before === null ? ["value"] : ["before", "after", "change"];
  const encoders = Object.values(ENCODERS);
  const heads = [
    [
      make("th", { scope: "col", rowspan: 2 }, "Term"),
      ...encoders.map((encoder) => make("th", { scope: "colgroup", colspan: parts.length }, encoder)),
    ],
    encoders.flatMap(() => parts.map((part) => cell(part, "th", { scope: "col" }))),
  ];
  const rows = text.terms.map(({ heading, values }) => {
    const cells = Object.keys(ENCODERS).flatMap((encoder) => {
      if (!values[encoder]) return parts.map(() => cell("–"));
      const [before, after] = values[encoder];
      if (parts.length === 1) return [cell(number(after))];
      return [number(before), number(after), signed(after - before)].map((value) => cell(value));
    });
    return make("tr", {}, make("th", { scope: "row" }, heading), ...cells);
  });
  return scrolled(`Terms of U, ${name}`, heads, rows);
}

export function nearestList(nearest, take) {
  const items = nearest.map(({ item_id: id, title, distance }) =>
    make("li", {}, button(`${titled({ id, title })} (distance ${number(distance)})`, () => take(id))),
  );
  return [make("p", {}, "Nearest existing items:"), make("ol", { class: "found" }, ...items)];
}
