// The annotators' page: fetch the next item, draw its questions, send the label.
// All texts of items enter the page as text, never as markup.
"use strict";

const SCALES = {
  helpfulness: ["Helpfulness: does it do what was wanted?",
    ["useless", "hardly helps", "helps in part", "mostly helpful", "all that was wanted"]],
  correctness: ["Correctness: is it true and complete?",
    ["all wrong", "mostly wrong", "mixed", "small gaps only", "right and complete"]],
  coherence: ["Coherence: is it clear and free of contradiction?",
    ["not understandable", "hard to follow", "in part unclear", "nearly clear", "clear throughout"]],
  complexity: ["Complexity: who could have written it?",
    ["a child", "anyone", "a school leaver", "someone who studied it", "an expert"]],
  verbosity: ["Verbosity: how long for what was asked?",
    ["very brief", "rather short", "average", "rather long", "wordy"]],
};
const CONFIDENCE = ["a guess", "fairly sure", "sure"];
const ISSUES = {
  incorrect: "says something false", irrelevant: "says something beside the point",
  missing: "leaves out something important", false_premise: "accepts a false premise",
  repetition: "repeats itself", style_change: "changes its style", contradiction: "contradicts itself",
};
const SIX = ["complete failure", "very poor", "poor", "fair", "good", "excellent"];
const LENGTHS = ["too short", "right", "too long"];

const at = (id) => document.getElementById(id);
let annotator = "";
let current = null;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function question(name, legend, options, type = "radio") {
  const choices = make("div", { className: "choices" });
  for (const [value, text] of options) {
    const input = make("input", { type, name, value });
    choices.append(make("label", {}, input, text));
  }
  return make("fieldset", { name }, make("legend", {}, legend), choices);
}

const numbered = (texts) => texts.map((text, index) => [index, `${index} ${text}`]);
const plain = (texts) => texts.map((text) => [text, text]);

function message(role, content, judged) {
  const node = make("div", { className: judged ? "message judged" : "message" });
  node.append(make("h2", { textContent: role }), make("p", { textContent: content }));
  return node;
}

function ratingQuestions() {
  const parts = Object.entries(SCALES).map(([name, [legend, texts]]) =>
    question(name, legend, numbered(texts)));
  parts.push(question("confidence", "How sure are you about correctness?", numbered(CONFIDENCE)));
  parts.push(question("safe", "Safety: harmful, illegal, profane or biased?",
    [["yes", "no, it is safe"], ["no", "yes, it fails"]]));
  parts.push(question("issues", "What is wrong with it? (any number)", Object.entries(ISSUES), "checkbox"));
  return parts;
}

function sideQuestions(side, title) {
  return make("div", {},
    question(`${side}.helpfulness`, `${title}: helpfulness`, numbered(SIX)),
    question(`${side}.truthfulness`, `${title}: truthfulness`, numbered(SIX)),
    question(`${side}.length`, `${title}: length`, plain(LENGTHS)));
}

function show(item) {
  current = item;
  at("problem").textContent = "";
  at("skip").value = "";
  at("status").textContent = `${item.done} done, ${item.open} open for you`;
  at("main").hidden = !item.item;
  if (!item.item) {
    at("status").textContent = `${item.done} done. Nothing is open for you now. Thank you!`;
    return;
  }
  const last = item.messages.length - 1;
  const talk = item.messages.map((m, index) =>
    message(m.role, m.content, item.kind === "rating" && index === last));
  if (item.kind === "comparison") {
    talk.push(make("div", { className: "sides" },
      message("Answer A", item.left, true), message("Answer B", item.right, true)));
    at("questions").replaceChildren(make("div", { className: "sides" },
      sideQuestions("left", "Answer A"), sideQuestions("right", "Answer B")));
  } else {
    at("questions").replaceChildren(...ratingQuestions());
  }
  at("talk").replaceChildren(...talk);
  at("main").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function collect() {
  const form = new FormData(at("label"));
  const missing = [];
  for (const fieldset of at("questions").querySelectorAll("fieldset")) {
    const open = fieldset.name !== "issues" && !form.has(fieldset.name);
    fieldset.classList.toggle("missing", open);
    if (open) missing.push(fieldset);
  }
  if (missing.length) {
    at("problem").textContent = `${missing.length} question(s) not answered yet.`;
    missing[0].querySelector("input").focus();
    return null;
  }
  const number = (name) => Number(form.get(name));
  if (current.kind === "comparison") {
    const view = (side) => ({ helpfulness: number(`${side}.helpfulness`),
      truthfulness: number(`${side}.truthfulness`), length: form.get(`${side}.length`) });
    return { left: view("left"), right: view("right") };
  }
  const label = { safe: form.get("safe") === "yes", issues: form.getAll("issues") };
  for (const name of [...Object.keys(SCALES), "confidence"]) label[name] = number(name);
  return label;
}

async function call(path, body) {
  const options = body && { method: "POST", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, options);
  const value = await response.json();
  if (!response.ok) throw new Error(value.detail || `status ${response.status}`);
  return value;
}

async function guarded(work) {
  const buttons = document.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    await work();
  } catch (error) {
    at(current ? "problem" : "status").textContent = `Not saved: ${error.message}`;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

const advance = async () => show(await call(`/api/next?annotator=${encodeURIComponent(annotator)}`));

async function send(label) {
  await call("/api/label", { annotator, item: current.item, label });
  await advance();
}

at("who").addEventListener("submit", (event) => {
  event.preventDefault();
  annotator = at("name").value.trim();
  guarded(advance);
});
at("label").addEventListener("submit", (event) => {
  event.preventDefault();
  const label = collect();
  if (label) guarded(() => send(label));
});
at("flag").addEventListener("click", () => {
  const skip = at("skip").value;
  if (!skip) {
    at("problem").textContent = "Choose a reason for skipping.";
    at("skip").focus();
    return;
  }
  guarded(() => send({ skip }));
});
