"use strict";
// All texts of the archive are set as text, never as markup.
const $ = id => document.getElementById(id);
const query = {text: "", image: null, like: "", label: "", bbox: ""};
const LONGEST = 500;  // characters of a query that the server takes
const MISSING = "This file cannot be shown: it is gone, or has changed since it was indexed.";
let shown = [], more = false, busy = false, turn = 0;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const picture = (id, side) => `/api/images/${id}/picture?side=${side}`;
const whole = hit => hit.box[2] - hit.box[0] === hit.width && hit.box[3] - hit.box[1] === hit.height;
const title = hit => hit.file + (whole(hit) ? "" : `, tile at ${hit.box[0]}, ${hit.box[1]}`);

async function asked(path, options) {
  const answer = await fetch(path, options).catch(() => { throw new Error("The server does not answer. Is cmer serve still running?"); });
  const found = await answer.json().catch(() => ({detail: `the server answered ${answer.status}`}));
  if (!answer.ok) throw new Error(typeof found.detail === "string" ? found.detail : found.detail.map(each => each.msg).join("; "));
  return found;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function clear(why, bad = true) {
  ++turn;  // a search that is under way no longer counts
  shown = [];
  more = busy = false;
  $("grid").replaceChildren();
  places.highlight(shown);
  say(why, bad);
}

async function load(first) {
  if (!query.text.trim() && !query.image && !query.like) return clear("Describe what you are looking for, or drop an image anywhere on this page.", false);
  if (busy && !first) return;
  if (query.text.length > LONGEST) return clear(`The query has ${query.text.length.toLocaleString("en")} characters; at most ${LONGEST} are searched. Shorten it.`);
  const mine = first ? ++turn : turn;
  busy = true;
  if (first) say("Searching…");
  const form = new FormData();
  for (const [name, value] of Object.entries(query)) if (value) form.append(name, value);
  form.append("offset", first ? 0 : shown.length);
  try {
    const found = await asked("/api/search", {method: "POST", body: form});
    if (mine !== turn) return;
    if (first) { shown = []; $("grid").replaceChildren(); }
    shown.push(...found.hits);
    $("grid").append(...found.hits.map(card));
    more = found.more && shown.length < 5000;
    say(shown.length ? `${shown.length.toLocaleString("en")}${shown.length === 1 ? " image" : " images"}${more ? " so far" : ""}, the best first` : "Nothing matches these filters.");
    places.highlight(shown);
  } catch (error) {
    if (mine !== turn) return;
    more = false;
    if (first) clear(error.message);
    else say(error.message, true);
  } finally {
    if (mine === turn) { busy = false; next(); }
  }
}

function card(hit) {
  const image = element("img", {src: picture(hit.id, "small"), alt: "", loading: "lazy"});
  image.addEventListener("error", () => { image.alt = MISSING; });
  const score = hit.score.toFixed(3) + (hit.label ? ` · ${hit.label}` : "");
  const button = element("button", {type: "button"}, image, element("span", {textContent: score}), element("span", {textContent: title(hit)}));
  button.addEventListener("click", () => open(hit));
  return element("li", {}, button);
}

function next() {  // the observer reports only changes, so a short page asks again by itself
  if (more && $("end").getBoundingClientRect().top < innerHeight + 600) load(false);
}

function open(hit) {
  const [left, top, right, bottom] = hit.box;
  const large = element("img", {id: "large", src: picture(hit.id, "large"), alt: hit.file, width: right - left, height: bottom - top});
  large.addEventListener("error", () => { large.alt = MISSING; });
  $("large").replaceWith(large);
  $("file").textContent = hit.file;
  const facts = {Score: hit.score?.toFixed(4), Label: hit.label, Image: `${hit.width} × ${hit.height} pixels`};
  if (!whole(hit)) facts.Tile = `${hit.box[0]} to ${hit.box[2]} across, ${hit.box[1]} to ${hit.box[3]} down`;
  if (hit.footprint) facts.Place = hit.footprint.map(degrees => degrees.toFixed(4)).join(", ") + " (west, south, east, north)";
  facts.Id = hit.id;
  $("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {textContent: name}), element("dd", {textContent: value})]));
  $("like").onclick = () => { $("details").close(); search({like: hit.id, image: null, text: ""}); };
  if (!$("details").open) $("details").showModal();
}

async function place(id) {  // what is not among the results has no score
  open(shown.find(hit => hit.id === id) || {...await asked(`/api/images/${id}`), score: null});
}

function search(change) {
  Object.assign(query, {text: $("text").value}, change);
  $("text").value = query.text;
  parts();
  scrollTo({top: 0});
  load(true);
}

function parts() {
  const chosen = [];
  if (query.image) chosen.push(part(URL.createObjectURL(query.image), query.image.name, {image: null}));
  if (query.like) chosen.push(part(picture(query.like, "small"), "like this image", {like: ""}));
  $("parts").replaceChildren(...chosen);
  $("parts").hidden = !chosen.length;
}

function part(source, name, without) {
  const remove = element("button", {type: "button", textContent: "×", ariaLabel: `Remove: ${name}`});
  remove.addEventListener("click", () => search(without));
  return element("span", {className: "part"}, element("img", {src: source, alt: ""}), name, remove);
}

function upload(file) {
  if (file) search({image: file, like: ""});
}

function dragging(event) {
  const file = [...event.dataTransfer.items].some(item => item.kind === "file");
  if (file) event.preventDefault();
  $("drop").hidden = !file;
}

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", dark);
}

async function begin() {
  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme !== "dark"));
  $("form").addEventListener("submit", event => { event.preventDefault(); search({}); });
  $("image").addEventListener("change", () => { upload($("image").files[0]); $("image").value = ""; });
  $("label").addEventListener("change", () => search({label: $("label").value}));
  $("close").addEventListener("click", () => $("details").close());
  $("details").addEventListener("click", event => { if (event.target === $("details")) $("details").close(); });
  for (const name of ["dragenter", "dragover"]) addEventListener(name, dragging);
  addEventListener("dragleave", event => { if (!event.relatedTarget) $("drop").hidden = true; });
  addEventListener("drop", event => { event.preventDefault(); $("drop").hidden = true; upload(event.dataTransfer.files[0]); });
  new IntersectionObserver(next, {rootMargin: "600px"}).observe($("end"));
  const about = await asked("/api/archive");
  document.title = `${about.name} · cmer`;
  $("name").textContent = about.name;
  $("about").textContent = `${about.images.toLocaleString("en")} images and tiles, embedded with ${about.model}`;
  const labels = Object.entries(about.labels).filter(([name]) => name);
  $("label").append(...labels.map(([name, count]) => element("option", {value: name, textContent: `${name} (${count})`})));
  $("label").hidden = !labels.length;
  if (about.bounds) places.begin(about.bounds, await asked("/api/footprints"), {
    open: id => place(id).catch(error => say(error.message, true)),
    within: bbox => search({bbox}),
  });
}

begin().catch(error => say(error.message, true));
