import { type Environment, STREAM_CLOSED } from "./environment";
import { parseRevoked, parseStreamed, type RealtimeEvent } from "./wire";

/** The channel on which views find what the stream brings. */
const CHANNEL = "events";

/** What a stream may bring; browsers hand over only what is asked for by name. */
const TYPES = [
  "run_started",
  "run_finished",
  "run_error",
  "step_started",
  "step_finished",
  "step_failed",
  "text_message_start",
  "text_message_content",
  "text_message_end",
  "tool_call_start",
  "tool_call_args",
  "tool_call_end",
  "approval_interrupt",
  "approval_resumed",
  "info_request_interrupt",
  "info_request_resumed",
  "synthorg:dissent",
];

interface StreamHooks {
  /** The stream flows, or has stopped and is being opened again by the browser. */
  onFlow(flowing: boolean): void;
  onEvent(event: RealtimeEvent): void;
  /** The server ended it because the caller may not read any more. */
  onRevoked(reason: string): void;
  /** It cannot be had. */
  onFailed(): void;
}

/** Follows one session's events over plain HTTP, where nothing else gets through. Returns what ends it. */
export function followStream(env: Environment, session: string, hooks: StreamHooks): () => void {
  const stream = env.openStream(`/api/v1/events/stream?session_id=${encodeURIComponent(session)}`);
  let everOpen = false;
  stream.onopen = () => {
    everOpen = true;
    hooks.onFlow(true);
  };
  stream.onerror = () => {
    if (everOpen && stream.readyState !== STREAM_CLOSED) hooks.onFlow(false);
    else hooks.onFailed();
  };
  for (const type of TYPES) {
    stream.addEventListener(type, ({ data }) => {
      const event = parseStreamed(data, CHANNEL);
      if (event) hooks.onEvent(event);
    });
  }
  stream.addEventListener("revoked", ({ data }) => {
    hooks.onRevoked(parseRevoked(data));
  });
  return () => {
    stream.onopen = null;
    stream.onerror = null;
    stream.close();
  };
}
