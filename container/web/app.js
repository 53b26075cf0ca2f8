// The shell of the page: it shows the view that the address names, and holds what all views share.
//
// A view is a module views/NAME.js. It exports
//
//     mount(root, context) -> undefined, or { show(), hide() }
//
// `mount` is called once, the first time that the view is shown, and fills `root`, an empty <div class="view">.
// `show` and `hide` are called each time that the view appears and disappears, `show` also right after `mount`.
// A hidden view's root is not in the document, but keeps its state: so each data-testid is there at most once.
//
// context: {
//   api                  one Api (api.js), with the user's token
//   announce(text)       let screen readers read a short text; what is visible must say it, too
//   go(name)             open another view
//   onTokenChange(f)     call f() whenever the token changes, while the view is visible or when it next appears
//   requireToken()       open the token's menu: call it if an ApiError has the code "access_denied"
// }

import { Api } from "./api.js";
import { showError } from "./components.js";

const VIEWS = document.documentElement.dataset.views.split(" "); // that this port of the server has; the first is shown
const TITLES = { read: "Read lips", sync: "Sync lips", live: "Live avatar", jobs: "Jobs" };

const byId = (id) => document.getElementById(id);
const sectionOf = (name) => byId(`view-${name}`);
const mounted = new Map(); // name -> { root, view, listeners, isStale }
let current = null;

const api = new Api();

function announce(text) {
  byId("announcement").textContent = text;
}

function requireToken() {
  byId("token-menu").open = true;
}

function contextFor(entry) {
  return {
    api,
    announce,
    requireToken,
    go: (name) => { location.hash = name; },
    onTokenChange: (listener) => { entry.listeners.push(listener); },
  };
}

async function mountView(name) {
  const root = document.createElement("div");
  root.className = "view";
  const entry = { root, view: null, listeners: [], isStale: false };
  sectionOf(name).append(root);
  try {
    const { mount } = await import(`./views/${name}.js`);
    entry.view = mount(root, contextFor(entry)) ?? {};
    mounted.set(name, entry);
  } catch (error) {
    root.remove(); // the next visit tries again
    throw error;
  }
  return entry;
}

function hideCurrent() {
  const entry = mounted.get(current);
  entry?.view.hide?.();
  entry?.root.remove();
  sectionOf(current).hidden = true;
}

function viewNamed(hash) {
  const name = hash.replace(/^#/, "").split(/[/?]/)[0];
  return VIEWS.includes(name) ? name : null;
}

async function open(name, { isFirst = false } = {}) {
  if (name === current) return;
  if (current) hideCurrent();
  current = name;
  document.title = `${TITLES[name]} · Viseme`;
  byId("token-menu").open = false;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  sectionOf(name).hidden = false;
  if (!isFirst) byId(`title-${name}`).focus();
  await showView(name);
}

const mounting = new Map(); // name -> promise: a view that is left and opened again while it loads is mounted once

async function showView(name) {
  const section = sectionOf(name);
  section.querySelector(":scope > .load-error")?.remove();
  let entry = mounted.get(name);
  try {
    if (!entry) {
      if (!mounting.has(name)) mounting.set(name, mountView(name).finally(() => mounting.delete(name)));
      entry = await mounting.get(name);
    }
  } catch (error) {
    console.warn(error);
    const box = document.createElement("p");
    box.className = "load-error";
    section.append(box);
    showError(box, new Error(`This view could not be loaded: ${error.message}`));
    return;
  }
  if (current !== name) {
    entry.root.remove();
    return;
  }
  if (!entry.root.isConnected) section.append(entry.root);
  entry.view.show?.();
  if (entry.isStale) notify(entry);
}

function notify(entry) {
  entry.isStale = false;
  for (const listener of entry.listeners) listener();
}

function changeToken() {
  const token = byId("token").value;
  if (token === api.token) return;
  api.token = token;
  for (const [name, entry] of mounted) {
    if (name === current) notify(entry);
    else entry.isStale = true;
  }
}

byId("token").addEventListener("change", changeToken);
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  changeToken();
  byId("token-menu").open = false;
  byId("token-menu").querySelector("summary").focus();
});
byId("token-menu").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  byId("token-menu").open = false;
  byId("token-menu").querySelector("summary").focus();
});
document.addEventListener("pointerdown", ({ target }) => {
  if (!byId("token-menu").contains(target)) byId("token-menu").open = false;
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash names the view
  byId("main").focus();
});
addEventListener("hashchange", () => {
  const name = viewNamed(location.hash);
  if (name) open(name);
});
for (const link of document.querySelectorAll("[data-view]")) link.hidden = !VIEWS.includes(link.dataset.view);
byId("api-link").hidden = VIEWS.length === 1; // a port of older clients
open(viewNamed(location.hash) ?? VIEWS[0], { isFirst: true });
