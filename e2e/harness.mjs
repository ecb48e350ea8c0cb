import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const START_MS = 30_000;
const STEP_MS = 10_000;
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
const PROGRAM = process.env.QUARTERDECK_BIN;

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => probe.once("listening", resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/**
 * Starts the server on a fresh data folder and resolves once it says where it listens. It can be killed as a power
 * cut would and started again, on the same folder and address.
 */
export async function startServer() {
  if (!PROGRAM) throw new Error("Name the server to test in QUARTERDECK_BIN, or run `make test-e2e`.");
  const folder = await mkdtemp(join(tmpdir(), "quarterdeck-e2e-"));
  const origin = `http://127.0.0.1:${await freePort()}`;
  let end;
  const start = async () => {
    end = await launch(origin, folder);
  };
  const stop = async () => {
    await end?.("SIGTERM");
    await rm(folder, { recursive: true, force: true });
  };
  await start().catch(async (error) => {
    await stop();
    throw error;
  });
  return { origin, start, kill: () => end("SIGKILL"), stop };
}

/** Runs the program until what this gives is called. */
async function launch(origin, folder) {
  const child = spawn(PROGRAM, ["serve", "--port", new URL(origin).port, "--data-dir", folder], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: process.env.PATH,
      HOME: folder,
      NO_COLOR: "1",
      // All tests come from one address, and more often than a person would.
      QUARTERDECK_API__RATE_LIMIT__UNAUTH_MAX_REQUESTS: "1000",
    },
  });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const said = [];
  const end = async (signal) => {
    child.kill(signal);
    await exited;
  };

  try {
    await new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(`${PROGRAM} ${why}:\n${said.join("\n")}`));
      const timer = setTimeout(() => fail("did not say where it listens"), START_MS);
      child.once("error", (error) => fail(error.message));
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => {
          said.push(line);
          if (line.includes(origin)) resolve();
        });
      }
      exited.then((code) => fail(`ended with ${code}`)).finally(() => clearTimeout(timer));
    });
  } catch (error) {
    await end("SIGTERM");
    throw error;
  }
  return end;
}

/** Starts a browser that asks nobody but the pages it is sent to. */
export function startBrowser() {
  return chromium.launch({
    executablePath: BROWSER,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
    ],
  });
}

/**
 * Opens a page in a context of its own and records what a quiet page has none of: console errors, uncaught
 * exceptions, breaches of the content security policy, failed requests, and requests to another origin.
 */
export async function openPage(browser, origin, options = {}) {
  const context = await browser.newContext({ locale: "en-GB", ...options });
  const complaints = [];
  await context.exposeBinding("reportBreach", (_source, breach) => complaints.push(breach));
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      reportBreach(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`),
    );
  });
  const page = await context.newPage();
  page.setDefaultTimeout(STEP_MS);
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.origin !== origin && !["data:", "blob:"].includes(url.protocol)) {
      complaints.push(`request to another origin: ${url.origin}`);
    }
  });
  page.on("response", (response) => {
    if (response.status() >= 500) complaints.push(`${response.status()} from ${response.url()}`);
  });
  return { page, complaints, close: () => context.close() };
}
