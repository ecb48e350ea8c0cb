import { call } from "./api";
import { duration } from "./text";

interface Health {
  status: "ok" | "degraded" | "down";
  version: string;
  uptime_seconds: number;
}

const LABELS = { ok: "Healthy", degraded: "Degraded", down: "Down" };
const POLL_MS = 15_000;

async function refresh(badge: HTMLElement, text: HTMLElement): Promise<void> {
  try {
    const health = await call<Health>("GET", "/health");
    badge.dataset.state = health.status;
    text.textContent = `${LABELS[health.status]} · version ${health.version} · up for ${duration(health.uptime_seconds)}`;
  } catch {
    badge.dataset.state = "down";
    text.textContent = "Not reachable";
  }
}

/** Keeps the badge at what the server says of itself, as long as someone can see it. */
export function watchHealth(badge: HTMLElement, text: HTMLElement): void {
  const look = () => {
    if (document.visibilityState === "visible") void refresh(badge, text);
  };
  document.addEventListener("visibilitychange", look);
  setInterval(look, POLL_MS);
  look();
}
