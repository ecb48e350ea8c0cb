import type { Filters } from "./filters";
import type { Position } from "./positions";

/** The capable subprotocol; a server that does not pick it is spoken to plainly. */
export const PROTOCOL = "quarterdeck.v1";
const TICKET_PROTOCOL = "quarterdeck.ticket.";
const VERSION = 1;
const MAX_INBOUND_BYTES = 32_768;
const MAX_COMMAND_BYTES = 4_096;
const ID_BYTES = 32;
const MAX_LOGGED_CHARS = 200;

/** Something that happened, as views see it. */
export interface RealtimeEvent {
  event_type: string;
  channel: string;
  /** RFC 3339. */
  timestamp: string;
  payload: Readonly<Record<string, unknown>>;
  event_id: string | null;
  /** Null on a plain connection. */
  position: Position | null;
  /** True for what happened while this client was away. */
  replayed: boolean;
}

/** What the server says of a channel this client wanted to continue. */
export type Recovery = { recovered: true; count: number } | { recovered: false; reason: string };

/** What the server sends, sorted. */
export type Inbound =
  | { kind: "ready"; features: string[] }
  | { kind: "pong"; positions: Map<string, Position> }
  | {
      kind: "ack";
      action: "subscribed" | "unsubscribed";
      id: string | null;
      channels: string[];
      positions: Map<string, Position>;
      recovery: Map<string, Recovery>;
    }
  | { kind: "gap"; channel: string; position: Position }
  | { kind: "events"; events: RealtimeEvent[] }
  | { kind: "error"; id: string | null; text: string }
  | { kind: "oversized" };

/** A command to the server; `id`, `recover` and `batch` are for capable connections. */
export interface Command {
  action: "subscribe" | "unsubscribe" | "ping";
  channels?: string[];
  filters?: Filters;
  id?: string;
  recover?: Record<string, Position>;
  batch?: boolean;
}

type Json = Record<string, unknown>;

/** Where to connect, and what to offer there; a plain handshake has only the URL to carry its ticket. */
export function handshake(
  origin: string,
  ticket: string,
  plain: boolean,
): { url: string; protocols: string[] } {
  const url = `${origin.replace(/^http/, "ws")}/api/v1/ws`;
  return plain
    ? { url: `${url}?ticket=${encodeURIComponent(ticket)}`, protocols: [] }
    : { url, protocols: [PROTOCOL, TICKET_PROTOCOL + ticket] };
}

/** Whether the server would read this command once it has got its id. */
export function fits(command: Command): boolean {
  return bytesWithin(JSON.stringify(command), MAX_COMMAND_BYTES - ID_BYTES);
}

/** Sorts one frame; null for what a client has to ignore. */
export function parse(data: unknown): Inbound | null {
  if (typeof data !== "string") return null;
  if (!bytesWithin(data, MAX_INBOUND_BYTES)) return { kind: "oversized" };
  const frame = object(json(data));
  if (!frame) return null;
  const id = text(frame.id);
  switch (frame.action) {
    case undefined:
      break;
    case "auth_ok":
      return { kind: "ready", features: texts(frame.features) };
    case "pong":
      return { kind: "pong", positions: entries(frame.positions, position) };
    case "subscribed":
    case "unsubscribed":
      return {
        kind: "ack",
        action: frame.action,
        id,
        channels: texts(frame.channels),
        positions: entries(frame.positions, position),
        recovery: entries(frame.recovery, recovery),
      };
    case "gap": {
      const to = position({ epoch: frame.epoch, seq: frame.to });
      return typeof frame.channel === "string" && to
        ? { kind: "gap", channel: frame.channel, position: to }
        : null;
    }
    case "batch": {
      const events = Array.isArray(frame.events) ? frame.events : [];
      return { kind: "events", events: events.flatMap((each) => event(each) ?? []) };
    }
    default:
      return null;
  }
  if (typeof frame.error === "string") return { kind: "error", id, text: frame.error };
  const single = event(frame);
  return single && { kind: "events", events: [single] };
}

/** An event of the read-only stream; its members outside the payload become part of it, so that views can filter. */
export function parseStreamed(data: string, channel: string): RealtimeEvent | null {
  const { id, type, timestamp, payload, ...rest } = object(json(data)) ?? {};
  return event({
    event_type: type,
    channel,
    timestamp,
    payload: { ...rest, ...object(payload) },
    event_id: id,
  });
}

/** Why the read-only stream was taken away. */
export function parseRevoked(data: string): string {
  return text(object(json(data))?.reason) ?? "unknown";
}

/** What may be logged of a text somebody else wrote: short, and with nothing that moves other text about. */
export function sanitise(text: string): string {
  const printable = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "");
  return [...printable].slice(0, MAX_LOGGED_CHARS).join("");
}

function event(value: unknown): RealtimeEvent | null {
  const frame = object(value);
  if (!frame || (frame.version ?? VERSION) !== VERSION) return null;
  const { event_type, channel, timestamp } = frame;
  if (typeof event_type !== "string" || typeof channel !== "string" || channel.trim() === "") return null;
  if (typeof timestamp !== "string") return null;
  return {
    event_type,
    channel,
    timestamp,
    payload: object(frame.payload) ?? {},
    event_id: text(frame.event_id),
    position: position(frame.position),
    replayed: frame.replayed === true,
  };
}

function position(value: unknown): Position | null {
  const { epoch, seq } = object(value) ?? {};
  return typeof epoch === "string" && Number.isSafeInteger(seq) ? { epoch, seq: seq as number } : null;
}

function recovery(value: unknown): Recovery | null {
  const { recovered, count, reason } = object(value) ?? {};
  if (recovered === true) return { recovered, count: typeof count === "number" ? count : Number.NaN };
  return recovered === false ? { recovered, reason: text(reason) ?? "unknown" } : null;
}

function entries<T>(value: unknown, read: (value: unknown) => T | null): Map<string, T> {
  const known = new Map<string, T>();
  for (const [key, each] of Object.entries(object(value) ?? {})) {
    const entry = read(each);
    if (entry !== null) known.set(key, entry);
  }
  return known;
}

function json(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

function object(value: unknown): Json | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : null;
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}

function bytesWithin(data: string, limit: number): boolean {
  // A UTF-16 unit is one to three bytes: most texts need no second look.
  if (data.length > limit) return false;
  return data.length * 3 <= limit || new TextEncoder().encode(data).length <= limit;
}
