
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const published = data.mode === "published";
const PER_PAGE = 60;
const $ = (id) => document.getElementById(id);
const form = $("filters"), list = $("faces"), viewer = $("viewer");
const made = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};

// What a face is called and measured by.
const size = (face) => Math.min(face.box[2] - face.box[0], face.box[3] - face.box[1]);
const low = (value) => value ?? Infinity;
const high = (value) => -(value ?? -Infinity);
const words = {
  similarity: (face) => face.similarity === null ? "" : `likeness ${face.similarity.toFixed(2)}`,
  landmarks: (face) => face.found === false ? "no face found after"
    : face.landmarks === null ? "" : `moved ${(100 * face.landmarks).toFixed(1)} % of the eye distance`,
  tone: (face) => face.tone === null ? "" : `colour off by ${face.tone.toFixed(1)} (Lab)`,
  sharpness: (face) => face.sharpness === null ? "" : `${(2 ** face.sharpness).toFixed(2)} × as sharp`,
  size: (face) => `${Math.round(size(face))} px`,
  score: (face) => face.score === null ? "" : `detected with ${face.score.toFixed(2)}`,
};
const ORDERS = published ? [
  ["", "as in the dataset", null],
  ["size", "smallest first", size],
] : [
  ["", "as in the dataset", null],
  ["similarity", "most like the original", (face) => high(face.kind === "protected" ? face.similarity : null)],
  ["landmarks", "features moved most", (face) => face.found === false ? -1e9 : high(face.landmarks)],
  ["tone", "skin tone changed most", (face) => high(face.tone)],
  ["sharpness", "least sharp", (face) => low(face.sharpness)],
  ["size", "smallest", size],
  ["score", "detector least sure", (face) => low(face.score)],
];
const TABS = [
  ["all", "All", () => true],
  ["uncertain", "Uncertain", (face) => face.uncertain.length > 0],
  ["missed", "Perhaps missed", (face) => face.kind === "missed"],
  ["filled", "Filled", (face) => face.kind === "filled"],
  ["left", "Left", (face) => face.kind === "left"],
];
const KINDS = { protected: "protected", filled: "filled", left: "left as it was", missed: "perhaps missed" };

let tab = TABS[0], page = 0, shown = [], open = -1, whole = false, framed = true, focused = 0;
let unsaved = false;
const decisions = new Map(); // entry -> {action, box}

function nameOf(face) {
  return face.index === null || face.index === undefined ? face.sample : `${face.sample}, face ${face.index}`;
}

// Filters ------------------------------------------------------------------------------------------------------------
function choose() {
  const [from, to] = form.size.value ? form.size.value.split("-").map(Number) : [0, Infinity];
  const text = form.elements.name.value.trim().toLowerCase();
  const order = ORDERS.find((one) => one[0] === form.order.value)[2];
  shown = data.entries.filter((face) =>
    (published || tab[2](face)) && size(face) >= from && size(face) < to
    && (!form.group || !form.group.value || face.group === form.group.value)
    && (!text || `${face.shard}/${face.sample}`.toLowerCase().includes(text))
    && (!form.marked || !form.marked.checked || decisions.has(face)));
  if (order) shown = shown.map((face) => [order(face), face]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
  page = 0;
  focused = 0;
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  page = Math.min(page, pages - 1);
  const here = shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
  list.replaceChildren(...here.map((face, place) => card(face, place)));
  $("count").textContent = shown.length ? `${shown.length.toLocaleString("en")} face${shown.length === 1 ? "" : "s"}`
    : "No face fits these filters.";
  $("pages").hidden = pages === 1;
  $("page").textContent = `Page ${page + 1} of ${pages}`;
  $("earlier").disabled = page === 0;
  $("later").disabled = page === pages - 1;
}

function picture(source, text) {
  if (!source) return made("span", "none", "no picture");
  const image = made("img");
  image.src = source;
  image.alt = text;
  return image;
}

function card(face, place) {
  const item = made("li"), button = made("button", "card"), pictures = made("span", "pictures");
  button.type = "button";
  button.tabIndex = place === focused ? 0 : -1;
  button.dataset.place = place;
  if (!published) pictures.append(picture(face.before, "before"));
  pictures.append(picture(face.after, "after"));
  const text = made("span", "text"), what = made("span", "what"), where = made("span", "where", nameOf(face));
  where.title = `${face.shard} / ${face.sample}`;
  if (!published) {
    what.append(made("span", `chip ${face.kind}`, KINDS[face.kind]));
    if (face.uncertain.length) what.append(made("span", "chip uncertain", "uncertain"));
    if (decisions.has(face)) what.append(made("span", "chip decided", decisions.get(face).action));
    const measure = words[form.order.value || (face.kind === "protected" ? "similarity" : "size")](face);
    if (measure) what.append(made("span", "", measure));
    if (decisions.has(face)) button.dataset.decided = "";
  } else what.append(made("span", "", words.size(face)));
  text.append(where, what);
  button.append(pictures, text);
  button.addEventListener("click", () => show(page * PER_PAGE + place));
  item.append(button);
  return item;
}

// One face -----------------------------------------------------------------------------------------------------------
function show(place) {
  open = Math.max(0, Math.min(shown.length - 1, place));
  const face = shown[open];
  $("name").textContent = nameOf(face);
  $("previous").disabled = open === 0;
  $("next").disabled = open === shown.length - 1;
  $("whole").hidden = face.picture === null;
  const rows = [["shard", face.shard], ["sample", face.sample], ["picture", face.field], ["size", words.size(face)]];
  if (!published) {
    rows.push(["fate", KINDS[face.kind] + (face.reason ? `: ${face.reason}` : "")]);
    for (const reason of face.uncertain) rows.push(["look at", reason]);
    if (face.group) rows.push([data.group, face.group]);
    rows.push(["likeness", face.similarity === null ? "not measured" : `${face.similarity.toFixed(3)} to the original`
      + (data.limit === null ? "" : `; the limit is ${data.limit.toFixed(2)}`)]);
    for (const name of ["landmarks", "tone", "sharpness", "score"]) if (words[name](face)) rows.push([{
      landmarks: "features", tone: "skin tone", sharpness: "sharpness", score: "score" }[name], words[name](face)]);
  }
  $("details").replaceChildren(...rows.flatMap(([name, value]) => [made("dt", "", name), made("dd", "", value)]));
  if (!published) showDecision(face);
  showPicture();
  if (!viewer.open) viewer.showModal();
}

function showPicture() {
  const face = shown[open], large = whole && face.picture !== null;
  const from = large ? data.pictures[face.picture] : face;
  const before = $("before"), after = $("after");
  after.src = from.after || from.before;
  before.hidden = published || !from.before;
  before.src = from.before || "";
  const both = !before.hidden && Boolean(from.after);
  $("edge").hidden = !both;
  viewer.querySelector(".slide").hidden = viewer.querySelector(".sides").hidden = !both;
  $("whole").setAttribute("aria-pressed", String(large));
  $("framed").setAttribute("aria-pressed", String(framed));
  const box = large ? [face.box[0] / from.width, face.box[1] / from.height,
    (face.box[2] - face.box[0]) / from.width, (face.box[3] - face.box[1]) / from.height] : face.frame;
  const place = () => frame(box, after.naturalWidth / after.naturalHeight);
  after.onload = place;
  if (after.complete && after.naturalWidth) place();
  slide();
}

function frame(box, shape) {
  const area = $("pair"), mark = $("frame");
  let width = area.clientWidth, height = area.clientHeight;
  if (width / height > shape) width = height * shape; else height = width / shape;
  mark.hidden = !framed;
  mark.style.left = `${(area.clientWidth - width) / 2 + box[0] * width}px`;
  mark.style.top = `${(area.clientHeight - height) / 2 + box[1] * height}px`;
  mark.style.width = `${box[2] * width}px`;
  mark.style.height = `${box[3] * height}px`;
}

function slide() {
  const share = $("slider").value;
  $("before").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  $("edge").style.left = `${share}%`;
}

function step(by) {
  if (open + by >= 0 && open + by < shown.length) show(open + by);
}

// Decisions ----------------------------------------------------------------------------------------------------------
function showDecision(face) {
  const known = decisions.get(face);
  for (const radio of document.getElementsByName("action")) radio.checked = radio.value === (known ? known.action : "");
  $("box").value = (known && known.box.length ? known.box : face.box).join(", ");
  $("wrong").textContent = "";
}

function decide() {
  const face = shown[open], action = [...document.getElementsByName("action")].find((one) => one.checked).value;
  const box = $("box").value.split(",").map((part) => part.trim() === "" ? NaN : Number(part));
  const good = box.length === 4 && box.every(Number.isFinite) && box[0] < box[2] && box[1] < box[3];
  $("wrong").textContent = action && action !== "redo" && !good ? "Four numbers are needed: left, top, right, bottom." : "";
  if ($("wrong").textContent) return;
  if (action) decisions.set(face, { action: action, box: action === "redo" ? [] : box });
  else decisions.delete(face);
  unsaved = true;
  tell();
  draw();
}

function tell() {
  const shards = new Set([...decisions.keys()].map((face) => face.shard));
  const some = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  $("decided").textContent = decisions.size ? `${some(decisions.size, "decision")} about ${some(shards.size, "shard")}`
    : "No decisions yet";
  $("save").disabled = decisions.size === 0;
}

function save() {
  const shards = {};
  for (const [face, one] of decisions)
    (shards[face.shard] ??= []).push({ sample: face.sample, field: face.field, action: one.action, box: one.box });
  const file = { format: "diffpriv decisions", version: 1, dataset: data.dataset, shards: shards };
  const link = made("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
  link.download = "decisions.json";
  link.click();
  unsaved = false;
}

async function load(file) {
  const near = (a, b) => a.length === 4 && a.every((value, place) => Math.abs(value - b[place]) < 1);
  let found = 0, all = 0;
  try {
    const body = JSON.parse(await file.text());
    if (body.format !== "diffpriv decisions") throw new Error("no decisions file");
    for (const [shard, many] of Object.entries(body.shards)) for (const one of many) {
      all += 1;
      const same = (face) => face.shard === shard && face.sample === one.sample && face.field === one.field;
      const face = data.entries.find((entry) => same(entry) && near(one.box, entry.box)) ?? data.entries.find(same);
      if (face) decisions.set(face, { action: one.action, box: one.box });
      found += Boolean(face);
    }
  } catch {
    $("decided").textContent = "That file holds no decisions.";
    return;
  }
  draw();
  tell();
  if (found < all) $("decided").textContent += `; ${all - found} of the file are about faces that are not shown here`;
}

// Wiring -------------------------------------------------------------------------------------------------------------
function columns() {
  return Math.max(1, getComputedStyle(list).gridTemplateColumns.split(" ").length);
}

function focusCard(place) {
  const cards = list.querySelectorAll(".card");
  if (place < 0 || place >= cards.length) return;
  cards[focused].tabIndex = -1;
  focused = place;
  cards[focused].tabIndex = 0;
  cards[focused].focus();
}

function turn(by) {
  page = Math.max(0, page + by);
  focused = 0;
  draw();
  list.querySelector(".card")?.focus();
}

const flip = () => { $("slider").value = Number($("slider").value) > 50 ? 0 : 100; slide(); };
const look = () => { whole = !whole; showPicture(); };
const MOVES = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns, ArrowUp: () => -columns() };

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=radio]):not([type=range]), select, [role=tab]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const key = event.key.toLowerCase(), sliding = event.target === $("slider");
  let done = true;
  if (viewer.open) {
    if (event.key === "ArrowRight" && !sliding) step(1);
    else if (event.key === "ArrowLeft" && !sliding) step(-1);
    else if (key === " " && !published && event.target.tagName !== "BUTTON") flip();
    else if (key === "w") look();
    else if (!published && "0123".includes(key)) {
      document.getElementsByName("action")[Number(key)].checked = true;
      decide();
    } else done = false;
  } else if (event.target.classList.contains("card") && MOVES[event.key]) focusCard(focused + MOVES[event.key]());
  else if (key === "n" && !$("later").disabled) turn(1);
  else if (key === "p" && !$("earlier").disabled) turn(-1);
  else done = false;
  if (done) event.preventDefault();
});

for (const [value, text] of ORDERS) form.order.add(new Option(text, value));
if (form.group) for (const word of [...new Set(data.entries.map((face) => face.group))].sort())
  if (word) form.group.add(new Option(word, word));
form.addEventListener("input", choose);
form.addEventListener("submit", (event) => event.preventDefault());
$("help").addEventListener("click", () => $("keys").showModal());
$("earlier").addEventListener("click", () => turn(-1));
$("later").addEventListener("click", () => turn(1));
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => viewer.close());
$("whole").addEventListener("click", look);
$("framed").addEventListener("click", () => { framed = !framed; showPicture(); });
$("slider").addEventListener("input", slide);
viewer.addEventListener("close", () => {
  const place = open - page * PER_PAGE;
  if (place >= PER_PAGE || place < 0) { page = Math.floor(open / PER_PAGE); focused = 0; draw(); }
  focusCard(open - page * PER_PAGE);
});
addEventListener("resize", () => { if (viewer.open) showPicture(); });
const drag = (event) => {
  const area = $("pair").getBoundingClientRect();
  $("slider").value = 100 * (event.clientX - area.left) / area.width;
  slide();
};
$("pair").addEventListener("pointerdown", (event) => { $("pair").setPointerCapture(event.pointerId); drag(event); });
$("pair").addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });

if (!published) {
  $("save").addEventListener("click", save);
  $("load").addEventListener("change", (event) => { if (event.target.files[0]) load(event.target.files[0]); });
  $("actions").addEventListener("change", decide);
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  const bar = document.querySelector(".tabs");
  const pick = (chosen) => {
    tab = chosen;
    for (const button of bar.children) {
      button.setAttribute("aria-selected", String(button.dataset.tab === tab[0]));
      button.tabIndex = button.dataset.tab === tab[0] ? 0 : -1;
    }
    choose();
  };
  for (const one of TABS) {
    const button = made("button", "", `${one[1]} ${data.entries.filter(one[2]).length.toLocaleString("en")}`);
    button.type = "button";
    button.role = "tab";
    button.dataset.tab = one[0];
    button.setAttribute("aria-controls", "faces");
    button.addEventListener("click", () => pick(one));
    bar.append(button);
  }
  bar.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length];
    pick(next);
    bar.querySelector(`[data-tab=${next[0]}]`).focus();
  });
  const wanted = data.mode === "review" && TABS.slice(1).find((one) => data.entries.some(one[2]));
  pick(wanted || TABS[0]);
} else choose();
const count = (value) => value.toLocaleString("en");
const known = data.entries.filter((face) => face.kind !== "missed").length;
$("about").textContent = data.mode === "review"
  ? `What a person should look at, of ${count(data.faces)} faces in ${count(data.samples)} samples.`
    + " Give the saved file to diffpriv sanitize … --decisions decisions.json."
  : `${count(known)} of ${count(data.faces)} faces in ${count(data.samples)} samples`
    + (known < data.entries.length ? `, and ${count(data.entries.length - known)} places where one was perhaps missed` : "")
    + (published ? ", as they are published." : `. They spread over sizes, scores and groups; the worst of the ${count(data.looked)}`
      + " that were measured are among them.");
