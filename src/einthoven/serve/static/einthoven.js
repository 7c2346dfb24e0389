// What the page does beyond htmx: keys, drag and drop, filters that apply themselves. Without it everything still works.
"use strict";
document.documentElement.classList.add("scripted");

const STORED = "einthoven-keys";
const one = (selector, from = document) => from.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

function keysOn() {
  try { return localStorage.getItem(STORED) !== "off"; } catch { return true; }
}

function move(step) {
  const cards = all("[data-open]");
  if (!cards.length) return;
  const at = cards.findIndex((link) => link.closest("[data-hit]").contains(document.activeElement));
  const next = cards[Math.min(Math.max(at + step, 0), cards.length - 1)];
  next.focus({ preventScroll: true });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  next.closest("[data-hit]").scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
}

function mark() {
  const card = document.activeElement.closest("[data-hit]");
  if (card) one("[data-mark]", card).click();
}

const keys = {
  "/": () => { one("#q").focus(); one("#q").select(); },
  "j": () => move(1),
  "k": () => move(-1),
  "x": mark,
  "c": () => one("#compare")?.requestSubmit(),
  "?": () => one("#help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const writes = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || writes || one("#help")?.open || !keysOn()) return;
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

document.addEventListener("change", (event) => {
  if (event.target.closest("[data-auto]")) one("#ask").requestSubmit();
  if (event.target.id === "keys-on") {
    try { localStorage.setItem(STORED, event.target.checked ? "on" : "off"); } catch { /* not kept, then */ }
  }
});

one("#keys")?.addEventListener("click", () => one("#help").showModal());
if (one("#keys-on")) one("#keys-on").checked = keysOn();

const carriesFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFile(event) || !one("#send")) return;
  event.preventDefault();
  document.documentElement.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.documentElement.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.documentElement.classList.remove("dropping");
  if (!carriesFile(event) || !one("#send")) return;
  event.preventDefault();
  one("#send [type=file]").files = event.dataTransfer.files;
  one("#send").requestSubmit();
});

document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id === "found") one("#status").textContent = one("#found h1")?.textContent.trim() ?? "";
});
