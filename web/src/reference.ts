import "@scalar/api-reference/style.css";
import { config } from "zod";
import { csrfToken } from "./csrf";

// The reference checks its settings with zod, which tries `new Function` to see whether it may generate code.
// The page's policy forbids that and every try would be reported as a breach, so zod is told before it loads.
config({ jitless: true });
const { createApiReference } = await import("@scalar/api-reference");

createApiReference("#reference", {
  url: "/docs/openapi.json",
  favicon: "/favicon.svg",
  // What the reference could fetch or send elsewhere is off: it must work, and keep silent, with no internet.
  withDefaultFonts: false,
  telemetry: false,
  proxyUrl: "",
  agent: { disabled: true },
  hideClientButton: true,
  showDeveloperTools: "never",
  // A request tried from the page goes out as this browser's session, so it needs the session's other half.
  onBeforeRequest: ({ request }) => {
    const token = csrfToken(document.cookie);
    if (token && new URL(request.url).origin === location.origin) request.headers.set("X-CSRF-Token", token);
  },
});
