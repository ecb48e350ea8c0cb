import { afterEach, describe, expect, it, vi } from "vitest";
import { ApiError, call } from "./api";
import { csrfToken } from "./csrf";
import { explain } from "./forms";
import { duration, shorten, words } from "./text";

/** Lets `call` see these cookies and this answer; returns what it sent. */
function stub(cookie: string, answer: () => Promise<Response>) {
  const fetch = vi.fn<typeof globalThis.fetch>(answer);
  vi.stubGlobal("document", { cookie });
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

const json = (status: number, body: unknown) => async () => Response.json(body, { status });

afterEach(() => void vi.unstubAllGlobals());

describe("call", () => {
  it("unwraps the data of a success", async () => {
    stub("", json(200, { data: { needs_admin: true }, error: null, error_detail: null, success: true }));
    expect(await call("GET", "/setup/status")).toEqual({ needs_admin: true });
  });

  it("echoes the CSRF cookie on what changes something, and only there", async () => {
    const fetch = stub("a=b; csrf_token=to=ken; z=1", async () => new Response(null, { status: 204 }));
    await call("POST", "/auth/logout");
    await call("GET", "/auth/me");
    const sent = fetch.mock.calls.map(([, init]) => new Headers(init?.headers).get("X-CSRF-Token"));
    expect(sent).toEqual(["to=ken", null]);
  });

  it("turns a refusal into an error with its fields and its waiting time", async () => {
    const errors = [{ pointer: "/password", detail: "too short" }];
    stub(
      "",
      json(429, { data: null, error: "No.", error_detail: { retry_after: 7, errors }, success: false }),
    );
    const failure = await call("POST", "/auth/login", {}).catch((error) => error);
    expect(failure).toBeInstanceOf(ApiError);
    expect(failure).toMatchObject({ message: "No.", status: 429, fields: errors, retryAfterSeconds: 7 });
  });

  it("names the status when the body is no envelope", async () => {
    stub("", async () => new Response("<h1>Bad gateway</h1>", { status: 502 }));
    await expect(call("GET", "/health")).rejects.toThrow("The server answered with status 502.");
  });

  it("says so when there is no answer at all", async () => {
    stub("", () => Promise.reject(new TypeError("failed to fetch")));
    await expect(call("GET", "/health")).rejects.toMatchObject({ status: 0 });
  });
});

describe("csrfToken", () => {
  it("finds the cookie by its whole name and treats an empty one as none", () => {
    expect(csrfToken("x_csrf_token=no; csrf_token=yes")).toBe("yes");
    expect(csrfToken("csrf_token=")).toBeNull();
    expect(csrfToken("")).toBeNull();
  });
});

describe("explain", () => {
  it("says once when to try again", () => {
    const refusal = (text: string, seconds: number | null) => explain(new ApiError(text, 429, [], seconds));
    expect(refusal("Rate limit exceeded", 7)).toBe("Rate limit exceeded. Try again in 7 seconds.");
    expect(refusal("Too many. Retry after 7s.", 7)).toBe("Too many. Retry after 7s.");
    expect(refusal("Invalid credentials", null)).toBe("Invalid credentials");
  });
});

describe("text", () => {
  it("gives a duration in the largest unit that fits", () => {
    expect([0, 59, 60, 7_199, 86_400, 200_000].map(duration)).toEqual([
      "moments",
      "moments",
      "1 minute",
      "1 hour",
      "1 day",
      "2 days",
    ]);
  });

  it("shortens by whole characters and shows it", () => {
    expect([shorten("🙂🙂🙂", 3), shorten("🙂🙂🙂🙂", 3)]).toEqual(["🙂🙂🙂", "🙂🙂…"]);
  });

  it("shows an identifier as words", () => {
    expect(words("department_admin_all")).toBe("department admin all");
  });
});
