import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openPage, startBrowser, startServer } from "./harness.mjs";

const ACCOUNT = { username: "ada", password: "a long enough passphrase" };
const LATER = "01:00:00";

let server;
let browser;
/** Changes settings from elsewhere, whatever happens to the page. */
let elsewhere;
let changes = 0;

before(async () => {
  [server, browser] = await Promise.all([startServer(), startBrowser()]);
  elsewhere = await browser.newContext();
  const made = await elsewhere.request.post(`${server.origin}/api/v1/auth/setup`, { data: ACCOUNT });
  assert.ok(made.ok(), await made.text());
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Makes the server publish `setting.changed` on the channel `system`. */
async function changeSetting() {
  const path = `${server.origin}/api/v1/settings/security/lockout_threshold`;
  const csrf = (await elsewhere.cookies()).find(({ name }) => name === "csrf_token");
  const answer = await elsewhere.request.put(path, {
    data: { value: String(5 + (++changes % 5)) },
    headers: { "X-CSRF-Token": csrf.value },
  });
  assert.equal(answer.status(), 200, await answer.text());
}

/** Opens the welcome page, signed in as the session of `elsewhere`, and hands it to `steps` once it is connected. */
async function follow(steps, { prepare, ...options } = {}) {
  const storageState = await elsewhere.storageState();
  const opened = await openPage(browser, server.origin, { storageState, ...options });
  try {
    const { page, complaints } = opened;
    const sockets = [];
    page.on("websocket", (socket) => sockets.push(socket.url()));
    await prepare?.(page);
    await page.goto(server.origin);
    await state(page, "Connected");
    await steps(page, { complaints, sockets });
  } finally {
    await opened.close();
  }
}

const panel = (page) => page.getByRole("region", { name: "Live" });
const state = (page, text) => panel(page).getByRole("status").getByText(text, { exact: true }).waitFor();
const events = (page) => panel(page).getByRole("listitem").filter({ hasText: "setting.changed" });
const missed = (page) => panel(page).getByText(/^Some events were missed/);

/** Waits until the panel shows so many events; then there are no more than these. */
async function shows(page, count) {
  await events(page)
    .nth(count - 1)
    .waitFor();
  assert.equal(await events(page).count(), count);
}

test("a changed setting appears at once, on a narrow screen, in silence and without a ticket in a URL", async () => {
  await follow(
    async (page, { complaints, sockets }) => {
      await changeSetting();
      await shows(page, 1);
      const text = await events(page).first().innerText();
      for (const part of [/\d\d:\d\d/, /system/, /setting\.changed/, /lockout_threshold/])
        assert.match(text, part);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(overflow <= 0, `${overflow} pixels too wide`);
      assert.deepEqual(sockets, [`${server.origin.replace("http", "ws")}/api/v1/ws`]);
      assert.deepEqual(complaints, []);
    },
    { viewport: { width: 320, height: 640 } },
  );
});

test("a page that signs in follows from then on, and no longer once it signs out", async () => {
  await follow(async (page) => {
    await page.context().clearCookies();
    await page.reload();
    await page.locator("form:visible").getByLabel("Username").fill(ACCOUNT.username);
    await page.locator("form:visible").getByLabel("Password").fill(ACCOUNT.password);
    assert.equal(await panel(page).count(), 0);
    await page.getByRole("button", { name: "Sign in" }).click();
    await state(page, "Connected");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    assert.equal(await panel(page).count(), 0);
  });
});

test("after a crash of the server the page comes back by itself and says what it cannot know", async () => {
  await follow(async (page) => {
    await changeSetting();
    await shows(page, 1);
    await server.kill();
    await state(page, "Connecting…");
    assert.equal(await missed(page).count(), 0);
    await server.start();
    await state(page, "Connected");
    await missed(page).waitFor();
    await changeSetting();
    await shows(page, 2);
  });
});

test("what happens while the network is away is there once it is back", async () => {
  await follow(async (page) => {
    await changeSetting();
    await shows(page, 1);
    await page.context().setOffline(true);
    await changeSetting();
    await changeSetting();
    assert.equal(await events(page).count(), 1);
    await page.context().setOffline(false);
    await shows(page, 3);
    await changeSetting();
    await shows(page, 4);
    assert.equal(await missed(page).count(), 0);
  });
});

test("what happens while the page is frozen is there once it goes on", async () => {
  await follow(async (page) => {
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
    await changeSetting();
    await changeSetting();
    await devtools.send("Page.setWebLifecycleState", { state: "active" });
    await shows(page, 2);
    assert.equal(await missed(page).count(), 0);
  });
});

test("after an hour of sleep the page connects anew and has missed nothing", async () => {
  await follow(
    async (page, { sockets }) => {
      await changeSetting();
      await shows(page, 1);
      const connecting = page.waitForEvent("websocket");
      await page.clock.fastForward(LATER);
      await connecting;
      assert.equal(sockets.length, 2);
      await changeSetting();
      await shows(page, 2);
      assert.equal(await missed(page).count(), 0);
    },
    { prepare: (page) => page.clock.install() },
  );
});

test("a session that is ended elsewhere signs the page out, which stays away", async () => {
  const login = async (page) => {
    await page.context().clearCookies();
    const answer = await page.request.post(`${server.origin}/api/v1/auth/login`, { data: ACCOUNT });
    assert.equal(answer.status(), 200);
    await page.clock.install();
  };
  await follow(
    async (page, { sockets }) => {
      const csrf = (await elsewhere.cookies()).find(({ name }) => name === "csrf_token");
      const ended = await elsewhere.request.delete(`${server.origin}/api/v1/auth/sessions?scope=others`, {
        headers: { "X-CSRF-Token": csrf.value },
      });
      assert.equal(ended.status(), 200);
      await state(page, "Signed out");
      await page.getByRole("heading", { name: "Sign in" }).waitFor();
      const tickets = [];
      page.on("request", (request) => request.url().endsWith("/ws-ticket") && tickets.push(request.url()));
      // The health badge asks the server once more, which shows that timers do run.
      const asked = page.waitForResponse((response) => response.url().endsWith("/health"));
      await page.clock.fastForward(LATER);
      await asked;
      assert.equal(sockets.length, 1);
      assert.deepEqual(tickets, []);
    },
    { prepare: login },
  );
});
