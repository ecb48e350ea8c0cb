import { call } from "../api";

/** What a connection needs of a `WebSocket`. */
export interface Socket {
  readonly protocol: string;
  readonly readyState: number;
  onopen: (() => void) | null;
  onmessage: ((message: { data: unknown }) => void) | null;
  onclose: ((close: { code: number; reason: string }) => void) | null;
  send(text: string): void;
  close(): void;
}

/** What the read-only fallback needs of an `EventSource`. */
export interface EventStream {
  readonly readyState: number;
  onopen: (() => void) | null;
  onerror: (() => void) | null;
  addEventListener(type: string, listener: (message: { data: string }) => void): void;
  close(): void;
}

/** The ready state of a socket or a stream that is open. */
export const OPEN = 1;
/** The ready state of a stream that has given up. */
export const STREAM_CLOSED = 2;

/** What a timer is known by. */
export type Timer = number;

/** Why to look at the connection: somebody looks at the page again, or the network is there again. */
export type Wake = "look" | "network";

/** Everything a client gets from outside, so that tests can hold it still. */
export interface Environment {
  /** Scheme, host and port of the server, as in `https://deck.example`. */
  readonly origin: string;
  /** Milliseconds of a clock that goes on while the machine sleeps. */
  now(): number;
  setTimer(run: () => void, ms: number): Timer;
  clearTimer(timer: Timer): void;
  /** From 0 to 1, without 1. */
  random(): number;
  /** A new ticket for one connection; a failure has the `status` of the answer, 0 without one. */
  fetchTicket(): Promise<string>;
  openSocket(url: string, protocols: string[]): Socket;
  openStream(url: string): EventStream;
  /** Calls `listener` whenever a connection may have died unnoticed; the result ends that. */
  onWake(listener: (wake: Wake) => void): () => void;
  log(message: string): void;
}

/** The browser this runs in. */
export function browser(): Environment {
  return {
    origin: location.origin,
    now: () => Date.now(),
    setTimer: (run, ms) => window.setTimeout(run, ms),
    clearTimer: (timer) => clearTimeout(timer),
    random: () => Math.random(),
    fetchTicket: async () => (await call<{ ticket: string }>("POST", "/auth/ws-ticket")).ticket,
    openSocket: (url, protocols) => new WebSocket(url, protocols) as Socket,
    openStream: (url) => new EventSource(url) as EventStream,
    onWake,
    log: (message) => console.warn(message),
  };
}

function onWake(listener: (wake: Wake) => void): () => void {
  const over = new AbortController();
  const { signal } = over;
  const look = () => {
    if (document.visibilityState === "visible") listener("look");
  };
  document.addEventListener("visibilitychange", look, { signal });
  // A frozen page that goes on says so here.
  document.addEventListener("resume", look, { signal });
  window.addEventListener("online", () => listener("network"), { signal });
  return () => over.abort();
}
