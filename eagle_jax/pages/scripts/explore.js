// The page of `eagle-jax explore`: what its forms and buttons ask for, and where the answers go.

import { evaluatedPaths, evaluatedQuery, evaluatedText, listenToEvaluated } from "./evaluated.js";
import { SpaceMap } from "./map.js";
import { ask, at, details, during, readPositions, say, search } from "./page.js";
import { button, cell, make, marked, nearestList, number, scrolled, signed, termTable, titled } from "./texts.js";

const NAMES = { you: "you", agent: "the agent", reference: "the reference policy" };

let map = null;
let hasToStop = false;
let exploration = null; // {name, item, user, texts: [...], episodes: [...], current}

// Items, users and what they are begun with

function take(kind, id) {
  at(`${kind}-id`).value = id;
  say(`${kind === "items" ? "Item" : "User"} ${id} is chosen; Begin makes a new exploration with it.`);
}

const takeItem = (id) => take("items", id);

async function showPointed(kind, place) {
  if (kind === "way") {
    at("pointed").replaceChildren(...(evaluatedText(place) ?? textTold(place)));
    return;
  }
  const told = await details(kind, place).catch((error) => ({ id: "", title: error.message, words: [] }));
  if (map.pointed?.kind !== kind || map.pointed.place !== place) return; // it points at something else by now
  const name = kind === "items" ? `Item ${titled(told)}` : `User ${told.id}`;
  at("pointed").replaceChildren(make("p", {}, make("strong", {}, name)), ...marked(told.words));
}

// Texts

// What the map shows of a text of this exploration, by its key.
function textTold(key) {
  const text = exploration.texts[key.split("/")[1]];
  return [make("p", {}, make("strong", {}, `Text ${text.number}. `), `${toldChange(text)}.`), ...marked(text.words)];
}

const utility = (text, encoder) => text.terms[0].values[encoder][1];

function toldChange(text) {
  const before = text.terms[0].values.train[0];
  return `U ${number(utility(text, "train"))}, change ${signed(utility(text, "train") - before)}`;
}

function textSection(text) {
  const heading = text.number === 0 ? "Text 0, the item’s own" : `Text ${text.number}, of text ${text.before}`;
  const parts = [make("h3", {}, heading)];
  if (text.before !== null) {
    const asked = text.action === null ? "no instruction that could be read" : `“${text.action}”`;
    parts.push(make("p", {}, `By ${NAMES[text.by]}: ${asked}. Calls of the environment: ${text.environment_calls}.`));
  }
  const isSame = text.words.every(([kind]) => kind === "same" || kind === "label");
  if (text.malformed) parts.push(make("p", { class: "notice" }, text.malformed));
  else if (text.before !== null && isSame) parts.push(make("p", {}, "The environment left the text as it was."));
  parts.push(...marked(text.words), termTable(`text ${text.number}`, text), ...nearestList(text.nearest, takeItem));
  parts.push(make("p", {}, button(`Go on from text ${text.number}`, () => goOn(text.number))));
  return make("section", { "aria-label": `Text ${text.number}` }, ...parts);
}

function setCurrent(from) {
  exploration.current = from;
  document.querySelectorAll(".current").forEach((place) => (place.textContent = `text ${from}`));
  drawPaths();
}

function goOn(from) {
  setCurrent(from);
  at("instruction").focus();
}

// What is on the map: a line for each text that was made of another one, dashed ones for episodes.
function drawPaths() {
  map.paths = evaluatedPaths();
  if (exploration) drawExploration();
  const query = evaluatedQuery();
  at("evaluated-export")?.toggleAttribute("hidden", !query);
  for (const form of ["json", "csv"]) {
    if (exploration) at(form).href = `export/${exploration.name}.${form}${query && `?${query}`}`;
    if (at("evaluated-export")) at(`evaluated-${form}`).href = `export/evaluated.${form}?${query}`;
  }
  map.draw();
}

function drawExploration() {
  const { texts, episodes, current, growth } = exploration;
  map.paths = map.paths.concat(episodes.map(({ positions, letter }) => {
    const labels = positions.map((_, place) => (place === positions.length - 1 ? letter : ""));
    return { points: positions, labels, dashed: true };
  }));
  map.paths.push({ points: [texts[0].position], labels: ["0"], keys: ["text/0"] });
  for (const text of texts.slice(1)) {
    const [points, labels] = [[texts[text.before].position, text.position], ["", `${text.number}`]];
    map.paths.push({ points, labels, keys: [`text/${text.before}`, `text/${text.number}`] });
  }
  map.growth = { from: texts[current].position, to: growth };
}

function begin() {
  return during("Beginning …", async () => {
    const told = await ask("begin", { item: at("items-id").value, user: at("users-id").value });
    exploration = { ...told, texts: [told.text], episodes: [], current: 0 };
    at("about").textContent = `${titled(told.item)}, for user ${told.user.id}`;
    at("profile").textContent = `Profile: ${told.user.profile}`;
    at("texts").replaceChildren(textSection(exploration.texts[0]));
    at("compared").replaceChildren();
    at("episodes-played").replaceChildren();
    at("exploration").hidden = false;
    map.pointed = null;
    setCurrent(0);
    at("about").focus();
    return "Begun. The arrow on the map shows where this user’s own term grows.";
  });
}

async function step(by, instruction = "") {
  const fields = { name: exploration.name, before: exploration.current, by, instruction };
  const text = await ask("step", fields);
  exploration.texts.push(text);
  at("texts").prepend(textSection(text));
  setCurrent(text.number);
  return `Text ${text.number}: ${text.malformed || `${toldChange(text)}.`}`;
}

function rewrite() {
  return during("The environment rewrites the text …", async () => {
    const said = await step("you", at("instruction").value);
    at("instruction").value = "";
    return said;
  });
}

// One step after the other, each shown as soon as it is there.
function watchAgent(steps) {
  return during("The agent acts …", async () => {
    let said = "";
    hasToStop = false;
    at("stop").hidden = steps === 1;
    try {
      for (let taken = 0; taken < steps && !hasToStop; taken++) {
        said = await step("agent");
        say(`${said} Step ${taken + 1} of ${steps}.`);
      }
    } finally {
      at("stop").hidden = true;
    }
    return said;
  });
}

// Side by side

function comparisonTable() {
  const head = ["Text", "U", "U, held-out encoder", "Calls", "Could not be read"];
  const anchor = exploration.texts[0];
  const mine = exploration.texts[exploration.current];
  const rows = [{ title: "the item’s own", text: anchor, environment_calls: 0, malformed: 0 }];
  if (mine.number) rows.push({ title: `text ${mine.number}, on which you are`, text: mine });
  rows.push(...exploration.episodes);
  return scrolled(
    "Side by side",
    [head.map((title, place) => make("th", { scope: "col", ...(place ? { class: "number" } : {}) }, title))],
    rows.map(({ title, text, environment_calls: calls = "–", malformed = "–" }) => {
      const values = [number(utility(text, "train")), number(utility(text, "held_out")), `${calls}`, `${malformed}`];
      return make("tr", {}, make("th", { scope: "row" }, title), ...values.map((value) => cell(value)));
    }),
  );
}

function episodeSection(episode) {
  return make(
    "section",
    { "aria-label": episode.title },
    make("h3", {}, episode.title),
    make("p", {}, `${toldChange(episode.text)}; calls of the environment: ${episode.environment_calls}.`),
    make("ol", {}, ...episode.actions.map((action) => make("li", {}, action))),
    ...marked(episode.text.words),
    termTable(episode.title, episode.text),
    ...nearestList(episode.text.nearest, takeItem),
  );
}

function compare() {
  const best = at("episodes").value;
  const players = [{ by: "agent" }, { by: "reference" }];
  const asked = [...players, ...players.map((player) => ({ ...player, best_of: best }))];
  return during("The agent plays …", async () => {
    exploration.episodes = [];
    at("episodes-played").replaceChildren();
    for (const [place, fields] of asked.entries()) {
      const letter = "ABCD"[place];
      const title = `${letter}, ${fields.best_of ? `best of ${best} by ` : ""}${NAMES[fields.by]}`;
      say(`Playing ${title} …`);
      const episode = { ...(await ask("episode", { name: exploration.name, ...fields })), title, letter };
      exploration.episodes.push(episode);
      at("episodes-played").append(episodeSection(episode));
      at("compared").replaceChildren(comparisonTable());
      drawPaths();
    }
    return "All four are there.";
  });
}

// The page

function listen() {
  const sent = (form, action) =>
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      action();
    });
  document.querySelectorAll("form.find").forEach((form) => sent(form, () => search(form, take)));
  sent(at("begin"), begin);
  sent(at("instruct"), rewrite);
  sent(at("compare"), compare);
  at("one-step").addEventListener("click", () => watchAgent(1));
  at("all-steps").addEventListener("click", (event) => watchAgent(Number(event.target.dataset.steps)));
  at("stop").addEventListener("click", () => (hasToStop = true));
  at("zoom-in").addEventListener("click", () => map.zoom(1.5));
  at("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
  at("zoom-all").addEventListener("click", () => map.showAll());
  for (const layer of ["items", "users", "paths"]) {
    at(`show-${layer}`).addEventListener("change", (event) => map.show(layer, event.target.checked));
  }
}

map = new SpaceMap(at("map"), {
  onPoint: showPointed,
  onChoose: (kind, place) => {
    if (kind !== "way") details(kind, place).then(({ id }) => take(kind, id), (error) => say(error.message));
  },
});
listen();
listenToEvaluated({
  map,
  redraw: drawPaths,
  begin(itemId, userId) {
    at("items-id").value = itemId;
    at("users-id").value = userId;
    say(`Item ${itemId} and user ${userId} are chosen; Begin makes a new exploration with them.`);
  },
});
const [items, users] = await Promise.all(["items", "users"].map(readPositions));
map.setPositions({ items, users });
document.body.dataset.ready = "yes";
