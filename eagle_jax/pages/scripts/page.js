// What all pages with a map share: what they ask for and say, searches, details, positions.

import { button, make, titled } from "./texts.js";

export const at = (id) => document.getElementById(id);

let isBusy = false;

export function say(sentence) {
  at("status").textContent = sentence;
}

// What the address answers; `fields` are sent as a form. Throws an error that is one sentence.
export async function ask(address, fields) {
  const sent = fields && { method: "POST", body: new URLSearchParams(fields) };
  let answer;
  try {
    answer = await fetch(address, sent);
  } catch {
    throw new Error("The program does not answer: look whether it still runs.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || `The program failed (${answer.status}): its terminal says why.`);
  return told;
}

// One thing at a time: what is said meanwhile, and what went wrong.
export async function during(sentence, action) {
  if (isBusy) return;
  isBusy = true;
  say(sentence);
  try {
    say((await action()) || "");
  } catch (error) {
    say(error.message);
  } finally {
    isBusy = false;
  }
}

const known = new Map(); // address -> promise of what it answers
export const details = (kind, place) => {
  const address = `at/${kind}/${place}`;
  if (!known.has(address)) known.set(address, ask(address));
  known.get(address).catch(() => known.delete(address));
  return known.get(address);
};

// The form's search; take(kind, id): one of what was found was chosen.
export async function search(form, take) {
  const { kind } = form.dataset;
  const words = at(`${kind}-words`).value;
  try {
    const { count, found } = await ask(`found/${kind}?${new URLSearchParams({ words })}`);
    const more = count > found.length ? `, of which the first ${found.length}` : "";
    at(`${kind}-count`).textContent = `${count} found${more}`;
    at(`${kind}-found`).replaceChildren(
      ...found.map((one) => make("li", {}, button(titled(one), () => take(kind, one.id)))),
    );
  } catch (error) {
    at(`${kind}-count`).textContent = error.message;
  }
}

export async function readPositions(kind) {
  const bytes = await (await fetch(`positions/${kind}`)).arrayBuffer();
  const view = new DataView(bytes);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, place) => view.getFloat32(4 * place, true));
}
