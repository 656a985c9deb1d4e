// The page of `eagle-jax explore` on an ELM run: points of the space, and what the ELM says of them.

import { SpaceMap } from "./map.js";
import { ask, at, details, during, readPositions, say, search } from "./page.js";
import { make, marked, nearestList, number, titled } from "./texts.js";

const form = at("point");
const told = []; // what was read: {number, position, read_back, ...}
let path = []; // of the point that is chosen now
let looks = 0; // asked for; an answer that another one has overtaken is not shown

const fields = () => Object.fromEntries(new FormData(form));

function take(kind, id) {
  at(document.querySelector("[name=chosen]:checked").value).value = id;
  say(`Item ${id} is chosen.`);
  return look();
}

async function showPointed(kind, place) {
  const item = await details(kind, place).catch((error) => ({ id: "", title: error.message, words: [] }));
  if (map.pointed?.place !== place) return; // it points at something else by now
  at("pointed").replaceChildren(make("p", {}, make("strong", {}, `Item ${titled(item)}`)), ...marked(item.words));
}

function drawPaths() {
  const read = told.map(({ number, position, read_back: back }) => ({
    points: back ? [position, back] : [position],
    labels: [`${number}`, ""],
    dashed: true,
  }));
  map.paths = path.length ? [...read, { points: path, labels: path.map(() => "") }] : read;
  map.draw();
}

// The point as it is chosen: its place and what is near it. No model is asked.
async function look() {
  const mine = ++looks;
  at("alpha-told").textContent = at("alpha").value;
  at("spreads-told").textContent = at("spreads").value;
  try {
    const found = await ask("look", fields());
    if (mine !== looks) return;
    path = found.path;
    at("nearest").replaceChildren(...nearestList(found.nearest, (id) => take("items", id)));
    drawPaths();
  } catch (error) {
    if (mine === looks) say(error.message);
  }
}

function where({ first, second, alpha, tag, spreads }) {
  const between = second === null ? first : `${first} to ${second}, ${alpha} of the way`;
  return tag === null ? between : `${between}; ${spreads} spreads along ${tag}`;
}

function toldSection(one) {
  const name = `Point ${one.number}: ${where(one)}`;
  const said = one.text === null ? `No answer that can be read: ${one.malformed}.` : one.text;
  const parts = [make("h3", {}, name), make("p", {}, `${one.task.replaceAll("_", " ")}: `, make("span", {}, said))];
  if (one.sc !== null) parts.push(make("p", {}, `Semantic consistency with the point: ${number(one.sc)}.`));
  parts.push(...nearestList(one.nearest, (id) => take("items", id)));
  return make("section", { "aria-label": name }, ...parts);
}

function read() {
  return during("The ELM reads …", async () => {
    const one = await ask("tell", { ...fields(), name: form.dataset.name });
    told.push(one);
    at("texts").prepend(toldSection(one));
    drawPaths();
    return `Point ${one.number} has been read.`;
  });
}

const map = new SpaceMap(at("map"), {
  onPoint: showPointed,
  onChoose: (kind, place) => details(kind, place).then(({ id }) => take(kind, id), (error) => say(error.message)),
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
form.addEventListener("change", look);
document.querySelector("form.find").addEventListener("submit", (event) => {
  event.preventDefault();
  search(event.target, take);
});
at("zoom-in").addEventListener("click", () => map.zoom(1.5));
at("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
at("zoom-all").addEventListener("click", () => map.showAll());
map.setPositions({ items: await readPositions("items"), users: new Float32Array(0) });
await look();
document.body.dataset.ready = "yes";
