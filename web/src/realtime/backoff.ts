/** How often a lost connection is tried again before a person has to ask for it. */
export const MAX_ATTEMPTS = 20;

const FIRST_MS = 1_000;
const LONGEST_MS = 30_000;

/**
 * How long to wait before attempt number `attempt`, counted from 0: doubling, at most half a minute, and spread by
 * a fifth either way, so that the clients of a restarted server do not come back in one moment.
 */
export function reconnectDelay(attempt: number, random: () => number): number {
  const base = Math.min(FIRST_MS * 2 ** attempt, LONGEST_MS);
  return Math.min(Math.max(base * (0.8 + 0.4 * random()), 1), LONGEST_MS);
}

/**
 * Why a client stopped for good: the session is gone, the role is not let in, the server has said goodbye, or the
 * client itself broke a rule, which trying again would only repeat.
 */
export type StopReason = "signed-out" | "forbidden" | "closed" | "fault";

/** What a close code asks of the client. `refusals` counts the 4001 in a row, this one included. */
export function verdict(code: number, reason: string, refusals: number): StopReason | "reconnect" {
  switch (code) {
    case 1000:
    case 1001:
      return "closed";
    case 1009:
      return "fault";
    case 4001:
      // One ticket may have expired on its way; two mean that there is no session behind them.
      return refusals > 1 ? "signed-out" : "reconnect";
    case 4003:
      return reason.startsWith("Session revoked") ? "signed-out" : "forbidden";
    default:
      return "reconnect";
  }
}
