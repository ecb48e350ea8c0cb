import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openPage, startBrowser, startServer } from "./harness.mjs";

const ACCOUNT = { username: "ada", password: "a long enough passphrase" };

let server;
let browser;

before(async () => {
  [server, browser] = await Promise.all([startServer(), startBrowser()]);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Opens `path`, hands the page to `steps` and always closes it. */
async function visit(path, steps, options) {
  const opened = await openPage(browser, server.origin, options);
  try {
    await opened.page.goto(server.origin + path);
    await steps(opened.page, opened.complaints);
  } finally {
    await opened.close();
  }
}

/** An input of the form that is shown; the others wait hidden. */
const input = (page, label) => page.locator("form:visible").getByLabel(label);

async function fill(page, { username, password }) {
  await input(page, "Username").fill(username);
  await input(page, "Password").fill(password);
}

const heading = (page, name) => page.getByRole("heading", { name, exact: true });

// The first account is made once per server, so these steps are one story.
test("the first account is made, signed out and signed in again through the welcome page", async (t) => {
  await visit("/", async (page, complaints) => {
    await t.test("the page says that the server is healthy and in which version", async () => {
      await page
        .getByRole("status")
        .getByText(/^Healthy · version \d/)
        .waitFor();
    });

    await t.test("nothing is sent while a field is empty", async () => {
      await heading(page, "Create the first account").waitFor();
      await page.getByRole("button", { name: "Create account" }).click();
      assert.equal(await page.getByText("Please fill this in.").count(), 2);
      assert.equal(await input(page, "Username").getAttribute("aria-invalid"), "true");
      assert.deepEqual(complaints, []);
    });

    await t.test("too short a password is refused next to its field", async () => {
      await fill(page, { ...ACCOUNT, password: "short" });
      await page.getByRole("button", { name: "Create account" }).click();
      await page.locator("#setup-password-error").waitFor();
      assert.equal(await page.locator("#setup-username-error").count(), 0);
    });

    await t.test("the account is made with the keyboard alone and is signed in", async () => {
      complaints.length = 0; // The browser logs each refused request; from here on there are none.
      await input(page, "Password").fill(ACCOUNT.password);
      await page.keyboard.press("Enter");
      await heading(page, ACCOUNT.username).waitFor();
      assert.equal(await page.locator("#who-role").textContent(), "ceo");
      assert.equal(await page.locator("#who-org-roles").textContent(), "owner");
    });

    await t.test("over plain HTTP the session's cookie is kept, out of reach of scripts", async () => {
      const cookies = await page.context().cookies();
      const session = cookies.find(({ name }) => name === "session");
      assert.deepEqual([session.httpOnly, session.sameSite, session.secure], [true, "Strict", false]);
      assert.doesNotMatch(await page.evaluate(() => document.cookie), /session/);
    });

    await t.test("the session outlives a reload", async () => {
      await page.reload();
      await heading(page, ACCOUNT.username).waitFor();
    });

    await t.test("signing out ends the session, also after a reload", async () => {
      await page.getByRole("button", { name: "Sign out" }).click();
      await heading(page, "Sign in").waitFor();
      await page.reload();
      await heading(page, "Sign in").waitFor();
      const cookies = await page.context().cookies();
      assert.deepEqual(cookies, []);
    });

    await t.test("all of this made no complaint and asked no other origin", () => {
      assert.deepEqual(complaints, []);
    });

    await t.test("a wrong password is refused with a reason and no session", async () => {
      await fill(page, { ...ACCOUNT, password: "not the passphrase" });
      await page.getByRole("button", { name: "Sign in" }).click();
      const alert = page.getByRole("alert");
      await alert.waitFor();
      assert.match(await alert.textContent(), /invalid/i);
      assert.deepEqual(await page.context().cookies(), []);
    });

    await t.test("the right password signs in", async () => {
      await fill(page, ACCOUNT);
      await page.getByRole("button", { name: "Sign in" }).click();
      await heading(page, ACCOUNT.username).waitFor();
    });
  });
});

test("an account somebody else made chooses a password of its own before anything else", async () => {
  const guest = { username: "grace", password: "chosen by somebody else" };
  await visit("/", async (page) => {
    await heading(page, "Sign in").waitFor();
    await fill(page, ACCOUNT);
    await page.getByRole("button", { name: "Sign in" }).click();
    await heading(page, ACCOUNT.username).waitFor();
    const csrf = (await page.context().cookies()).find(({ name }) => name === "csrf_token");
    const made = await page.request.post(`${server.origin}/api/v1/users`, {
      data: { ...guest, role: "observer" },
      headers: { "X-CSRF-Token": csrf.value },
    });
    assert.equal(made.status(), 201);
  });
  await visit("/", async (page, complaints) => {
    await heading(page, "Sign in").waitFor();
    await fill(page, guest);
    await page.getByRole("button", { name: "Sign in" }).click();
    await heading(page, "Choose a new password").waitFor();
    await input(page, "Current password").fill(guest.password);
    await input(page, "New password").fill("a passphrase of my own");
    await page.getByRole("button", { name: "Change password" }).click();
    await heading(page, guest.username).waitFor();
    await page.reload();
    await heading(page, guest.username).waitFor();
    assert.deepEqual(complaints, []);
  });
});

/** Goes to an operation of the API reference by its group and name in the side bar. */
async function openOperation(page, { tags, summary }) {
  const sidebar = page.getByRole("navigation");
  await sidebar.getByText(tags[0], { exact: true }).click();
  await sidebar.getByText(summary, { exact: true }).click();
  await heading(page, summary).first().waitFor();
}

test("the API reference shows the server's operations, in silence and from this origin alone", async () => {
  await visit("/docs/api", async (page, complaints) => {
    const document = await (await page.request.get(`${server.origin}/docs/openapi.json`)).json();
    await heading(page, document.info.title).waitFor();
    await openOperation(page, document.paths["/api/v1/auth/login"].post);
    await page.getByText("/api/v1/auth/login").first().waitFor();
    await page.waitForLoadState("networkidle");
    assert.deepEqual(complaints, []);
  });
});

test("a request tried from the API reference goes out as the session of this browser", async () => {
  await visit("/docs/api", async (page, complaints) => {
    const login = await page.request.post(`${server.origin}/api/v1/auth/login`, { data: ACCOUNT });
    assert.equal(login.status(), 200);
    const document = await (await page.request.get(`${server.origin}/docs/openapi.json`)).json();
    await openOperation(page, document.paths["/api/v1/auth/ws-ticket"].post);
    await page.getByRole("button", { name: /Test Request.*ws-ticket/ }).click();
    const answered = page.waitForResponse((response) => response.url().endsWith("/auth/ws-ticket"));
    await page.getByRole("button", { name: /^Send Request/ }).click();
    assert.equal((await answered).status(), 200);
    assert.deepEqual(complaints, []);
  });
});

test("a refusal for now is told with the time to try again, and trying again helps", async () => {
  await visit("/", async (page) => {
    await heading(page, "Sign in").waitFor();
    const refusal = {
      success: false,
      data: null,
      error: "Rate limit exceeded",
      error_detail: { retry_after: 41 },
    };
    await page.route("**/setup/status", (route) => route.fulfill({ status: 429, json: refusal }));
    await page.reload();
    await heading(page, "Not at the moment").waitFor();
    await page.getByText("Rate limit exceeded. Try again in 41 seconds.").waitFor();
    await page.unroute("**/setup/status");
    await page.getByRole("button", { name: "Try again" }).click();
    await heading(page, "Sign in").waitFor();
  });
});

test("the links of the welcome page lead somewhere", async () => {
  await visit("/", async (page) => {
    const links = await page
      .getByRole("navigation")
      .getByRole("link")
      .evaluateAll((all) => all.map((link) => link.href));
    assert.equal(links.length, 3);
    for (const link of links) assert.equal((await page.request.get(link)).status(), 200, link);
  });
});

for (const path of ["/", "/docs/errors", "/docs/api"]) {
  test(`${path} fits a narrow screen and is quiet`, async () => {
    await visit(
      path,
      async (page, complaints) => {
        await page.getByRole("heading").first().waitFor();
        await page.waitForLoadState("networkidle");
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        assert.ok(overflow <= 0, `${overflow} pixels too wide`);
        assert.deepEqual(complaints, []);
      },
      { viewport: { width: 320, height: 640 } },
    );
  });
}
