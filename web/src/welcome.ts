import { ApiError, call } from "./api";
import { csrfToken } from "./csrf";
import { attempt, explain, onSubmit } from "./forms";
import { watchHealth } from "./health";
import { LivePanel } from "./live";
import { words } from "./text";

interface SetupStatus {
  needs_admin: boolean;
  min_password_length?: number;
}

interface Me {
  id: string;
  username: string;
  role: string;
  must_change_password: boolean;
  org_roles: string[];
}

type ViewName = "waiting" | "unreachable" | "setup" | "login" | "change" | "signed-in";

const card = byId("card");
const live = new LivePanel(byId("live"), () => {
  moveFocus = false;
  void load();
});
/** False until the page has settled: only what a person did moves the focus. */
let moveFocus = false;

function byId(id: string): HTMLElement {
  return document.getElementById(id) as HTMLElement;
}

function view<T extends HTMLElement>(name: ViewName): T {
  return card.querySelector(`[data-view="${name}"]`) as T;
}

function show(name: ViewName): void {
  for (const each of card.querySelectorAll<HTMLElement>("[data-view]"))
    each.hidden = each.dataset.view !== name;
  card.setAttribute("aria-busy", String(name === "waiting"));
  if (moveFocus) view(name).querySelector<HTMLElement>("h2")?.focus();
}

function showMe(me: Me): void {
  byId("who").textContent = me.username;
  byId("who-role").textContent = words(me.role);
  byId("who-org-roles").textContent = me.org_roles.map(words).join(", ") || "none";
  byId("who-id").textContent = me.id;
  show(me.must_change_password ? "change" : "signed-in");
  if (!me.must_change_password) live.start(me.id);
}

/** The account of this browser's session, or null when there is none. */
async function currentAccount(): Promise<Me | null> {
  // Without this cookie there is no session, and asking would only log a refusal.
  if (csrfToken(document.cookie) === null) return null;
  try {
    return await call<Me>("GET", "/auth/me");
  } catch (failure) {
    if (failure instanceof ApiError && failure.status === 401) return null;
    throw failure;
  }
}

async function load(): Promise<void> {
  try {
    const me = await currentAccount();
    const setup = await call<SetupStatus>("GET", "/setup/status");
    const hint = setup.min_password_length ? `At least ${setup.min_password_length} characters.` : "";
    byId("setup-hint").textContent = hint;
    byId("change-hint").textContent = hint;
    if (me) showMe(me);
    else show(setup.needs_admin ? "setup" : "login");
  } catch (failure) {
    const answered = failure instanceof ApiError && failure.status > 0;
    byId("unreachable-title").textContent = answered ? "Not at the moment" : "The server does not answer";
    byId("unreachable-reason").textContent = explain(failure);
    show("unreachable");
  }
  moveFocus = true;
}

async function logout(): Promise<void> {
  // The server also ends the live connection of a session, which is no news for who ends it.
  live.stop();
  try {
    await call("POST", "/auth/logout");
  } finally {
    await load();
  }
}

onSubmit(view<HTMLFormElement>("setup"), async (fields) => {
  try {
    await call("POST", "/auth/setup", fields);
  } catch (failure) {
    // Someone else was faster: what is open now is the way in for accounts that exist.
    if (failure instanceof ApiError && failure.status === 409 && !(await needsAdmin())) return show("login");
    throw failure;
  }
  await load();
});

async function needsAdmin(): Promise<boolean> {
  return (await call<SetupStatus>("GET", "/setup/status")).needs_admin;
}

onSubmit(view<HTMLFormElement>("login"), async (fields) => {
  await call("POST", "/auth/login", fields);
  await load();
});

onSubmit(view<HTMLFormElement>("change"), async (fields) => {
  await call("POST", "/auth/change-password", fields);
  await load();
});

for (const button of card.querySelectorAll<HTMLElement>('[data-action="logout"]')) {
  button.addEventListener(
    "click",
    () => void attempt(button.closest<HTMLElement>("[data-view]") ?? card, logout),
  );
}
byId("retry").addEventListener("click", () => {
  show("waiting");
  void load();
});

watchHealth(byId("health"), byId("health-text"));
void load();
