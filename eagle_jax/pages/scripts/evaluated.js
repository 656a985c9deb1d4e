// Episodes that the run's evaluation has played: chosen from a list, drawn on the map, told step by step.

import { ask, at, during, say } from "./page.js";
import { button, cell, make, marked, number, scrolled, signed, termTable, titled } from "./texts.js";

const KEY = "evaluated/"; // what keys of these episodes' points begin with
const shown = []; // {letter, address, row, seed, item, user, texts: [...]}
let lists = null; // the list of episodes of each row, once it was asked for
let chosen = null; // of a list
let count = 0;
let page = null; // {map, redraw, begin(itemId, userId)}

export const evaluatedPaths = () =>
  shown.map(({ letter, texts }) => ({
    points: texts.map(({ position }) => position),
    labels: texts.map((_, place) => (place === texts.length - 1 ? letter : "")),
    keys: texts.map((_, place) => `${KEY}${letter}/${place}`),
    dashed: true,
  }));

// What the map shows of a point, if it is one of these episodes'.
export function evaluatedText(key) {
  if (!key.startsWith(KEY)) return null;
  const [letter, place] = key.slice(KEY.length).split("/");
  const episode = shown.find((one) => one.letter === letter);
  return episode && stepTold(episode, episode.texts[place]);
}

export const evaluatedQuery = () => new URLSearchParams(shown.map(({ address }) => ["evaluated", address])).toString();

const utilities = (text) => ["train", "held_out"].map((encoder) => text.terms[0].values[encoder]);

function stepTitle(episode, { number: step, action }) {
  if (step === 0) return `${episode.letter}: the item’s own text`;
  return `${episode.letter}, step ${step}: ${action === null ? "no action that could be read" : action}`;
}

function stepTold(episode, text) {
  const [own, judged] = utilities(text);
  const change = ([before, after]) => (text.number ? `, change ${signed(after - before)}` : "");
  const held = judged ? `; held-out encoder ${number(judged[1])}${change(judged)}` : "";
  return [
    make("p", {}, make("strong", {}, stepTitle(episode, text))),
    make("p", {}, `U ${number(own[1])}${change(own)}${held}.`),
    ...(text.malformed ? [make("p", { class: "notice" }, text.malformed)] : marked(text.words)),
  ];
}

function stepsTable(episode) {
  const head = ["Step", "U", "Change", "U, held-out encoder", "Change"];
  const values = (pair, isFirst) => {
    if (!pair) return ["–", "–"];
    return [number(pair[1]), isFirst ? "–" : signed(pair[1] - pair[0])];
  };
  const rows = episode.texts.map((text, place) => {
    const cells = utilities(text).flatMap((pair) => values(pair, place === 0));
    const title = place === 0 ? "the item’s own" : `${place}: ${text.action ?? "could not be read"}`;
    return make("tr", {}, make("th", { scope: "row" }, title), ...cells.map((value) => cell(value)));
  });
  const heads = head.map((title, place) => make("th", { scope: "col", ...(place ? { class: "number" } : {}) }, title));
  return scrolled(`Steps of ${episode.letter}`, [heads], rows);
}

function stepPart(episode, text) {
  const { letter } = episode;
  const point = button(`Mark ${text.number ? `step ${text.number}` : "the item"} of ${letter} on the map`, () =>
    page.map.pointAt(`${KEY}${letter}/${text.number}`),
  );
  const terms = make("details", {}, make("summary", {}, "Every term of U"), termTable(stepTitle(episode, text), text));
  return make("li", {}, ...stepTold(episode, text), terms, make("p", {}, point));
}

function episodeSection(episode) {
  const { letter, row, seed, item, user, texts } = episode;
  const section = make("section", { "aria-label": `Episode ${letter}` });
  const remove = button(`Take ${letter} away`, () => {
    shown.splice(shown.indexOf(episode), 1);
    section.remove();
    page.redraw();
  });
  const use = button("Choose its item and user", () => page.begin(item.id, user.id));
  section.append(
    make("h3", { tabindex: "-1" }, `${letter}: ${row}, seed ${seed}`),
    make("p", {}, `${titled(item)}, for user ${user.id}. Calls of the environment: ${episode.environment_calls}.`),
    make("p", {}, `Profile: ${user.profile}`),
    stepsTable(episode),
    make("ol", { class: "found" }, ...texts.map((text) => stepPart(episode, text))),
    make("p", { class: "options" }, use, remove),
  );
  return section;
}

function show() {
  const [row, place] = [at("evaluated-row").value, at("evaluated-episode").value];
  return during("Reading the episode …", async () => {
    if (place === "") throw new Error("Choose an episode first.");
    chosen = lists[row][place];
    const told = await ask(`evaluated/${row}/${place}`);
    const episode = { ...told, letter: `E${++count}`, address: `${row}.${place}` };
    shown.push(episode);
    at("evaluated").prepend(episodeSection(episode));
    page.redraw();
    at("evaluated").querySelector("h3").focus();
    return `${episode.letter} is on the map: ${titled(told.item)}, for user ${told.user.id}.`;
  });
}

function listTitle({ item_id: id, title, user_id: user, seed, gain }) {
  return `${signed(gain)}, user ${user}, seed ${seed}, ${titled({ id, title })}`;
}

// Where the start that was chosen before is in another row's list, of the same seed if there is one; else the first.
function sameStart(episodes, before) {
  const isPair = (one) => one.item_id === before?.item_id && one.user_id === before?.user_id;
  const exact = episodes.findIndex((one) => isPair(one) && one.seed === before.seed);
  return Math.max(0, exact >= 0 ? exact : episodes.findIndex(isPair));
}

// The episodes of the chosen row.
async function list() {
  const row = at("evaluated-row").value;
  at("evaluated-episode").replaceChildren();
  lists[row] ??= await ask(`evaluated/${row}`);
  if (at("evaluated-row").value !== row) return; // another one was chosen meanwhile
  const options = lists[row].map((one, place) => make("option", { value: place }, listTitle(one)));
  at("evaluated-episode").replaceChildren(...options);
  at("evaluated-episode").selectedIndex = sameStart(lists[row], chosen);
}

function open() {
  if (lists) return undefined;
  return during("Reading what the evaluation has played …", async () => {
    const rows = await ask("evaluated");
    lists = [];
    at("evaluated-row").replaceChildren(...rows.map((row, place) => make("option", { value: place }, row)));
    await list();
    return "";
  });
}

// map: where ways are drawn; redraw(): draws them; begin(itemId, userId): takes both to begin with.
export function listenToEvaluated(given) {
  page = given;
  const part = at("evaluated-part");
  if (!part) return;
  part.addEventListener("toggle", open);
  at("evaluated-row").addEventListener("change", () => list().catch((error) => say(error.message)));
  at("evaluated-episode").addEventListener("change", (event) => {
    chosen = lists[at("evaluated-row").value][event.target.value];
  });
  at("show-evaluated").addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
}
