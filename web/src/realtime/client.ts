import type { StopReason } from "./backoff";
import { Connection } from "./connection";
import { browser, type Environment } from "./environment";
import { Positions } from "./positions";
import { Session } from "./session";
import { Subscriptions, type View } from "./subscriptions";
import { type Inbound, type RealtimeEvent, sanitise } from "./wire";

export type { StopReason } from "./backoff";
export type { Filters } from "./filters";
export type { View } from "./subscriptions";
export type { RealtimeEvent } from "./wire";

const REMEMBERED_IDS = 1_024;

/** How things stand. */
export interface RealtimeState {
  connected: boolean;
  /** Only the read-only event stream gets through. */
  readOnly: boolean;
  /** All attempts were in vain; {@link RealtimeClient.retry} begins anew. */
  reconnectExhausted: boolean;
  /** Why the client does not come back by itself, if it does not. */
  stopped: StopReason | null;
  /** What the server last said it sends. */
  subscribedChannels: readonly string[];
}

export interface RealtimeOptions {
  env?: Environment;
  /** The session whose events are streamed where no socket gets through; without one nothing is. */
  session?: string;
}

/** Live events of this server, over whatever gets through, without ever losing one in silence. */
export class RealtimeClient {
  private readonly env: Environment;
  private readonly connection: Connection;
  private readonly subscriptions: Subscriptions;
  private readonly positions = new Positions();
  private readonly listeners = new Set<(state: RealtimeState) => void>();
  /** Ids of the last events without a position. */
  private readonly ids = new Set<string>();
  private session: Session | null = null;
  private stopWaking: (() => void) | null = null;
  private current: RealtimeState;

  constructor({ env = browser(), session }: RealtimeOptions = {}) {
    this.env = env;
    this.subscriptions = new Subscriptions((message) => env.log(message));
    this.connection = new Connection(env, session ?? null, {
      onReady: (features) => this.ready(features),
      onFrame: (frame) => this.received(frame),
      ping: () => this.session?.ping(),
      onState: () => this.changed(),
    });
    this.current = this.snapshot([]);
  }

  get state(): RealtimeState {
    return this.current;
  }

  /** Calls `listener` whenever the state has changed. Returns what ends that. */
  onState(listener: (state: RealtimeState) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * Connects and stays connected. Resolves once connected or called off, rejects when this attempt has failed; the
   * next one is then already planned, unless the state says otherwise.
   */
  connect(): Promise<void> {
    this.stopWaking ??= this.env.onWake((wake) => this.connection.wake(wake));
    return this.connection.connect();
  }

  /** Closes, and forgets all views, handlers and positions. */
  disconnect(): void {
    this.stopWaking?.();
    this.stopWaking = null;
    this.subscriptions.clear();
    this.positions.clear();
    this.ids.clear();
    this.connection.disconnect();
    this.update(this.snapshot([]));
  }

  /** Begins anew at once, whatever came before. */
  retry(): void {
    this.connection.retry();
  }

  /**
   * Lets a view follow its channels, connected or not. Returns what ends that; afterwards nothing of the view is
   * called any more.
   *
   * @throws RangeError for filters the server would refuse.
   */
  watch(view: View): () => void {
    const remove = this.subscriptions.add(view);
    this.sync();
    // A channel that flows already has no answer to wait for.
    queueMicrotask(() => {
      for (const channel of view.channels) {
        if (this.session?.settled(channel)) this.subscriptions.begin(channel, null);
      }
    });
    return () => {
      remove();
      for (const channel of view.channels) {
        if (!this.subscriptions.wants(channel)) this.positions.forget(channel);
      }
      this.sync();
    };
  }

  /** Calls `handler` with every event, whichever view it is for. Returns what ends that. */
  onEvent(handler: (event: RealtimeEvent) => void): () => void {
    return this.subscriptions.listen(handler);
  }

  private sync(): void {
    this.session?.sync(this.subscriptions.wanted(), this.positions);
  }

  private ready(features: string[] | null): void {
    this.session = new Session(features, (text) => this.connection.send(text));
    this.sync();
  }

  private received(frame: Inbound): void {
    switch (frame.kind) {
      case "events":
        for (const event of frame.events) this.happened(event);
        break;
      case "ack":
        this.acknowledged(frame);
        break;
      case "pong":
        this.session?.answered("ping", null);
        for (const [channel, position] of frame.positions) {
          if (this.session?.hasBegun(channel) && this.positions.advance(channel, position) === "epoch") {
            this.subscriptions.reload(channel, "epoch_changed");
          }
        }
        this.sync();
        break;
      case "gap":
        if (!this.session?.hasBegun(frame.channel)) break;
        this.positions.advance(frame.channel, frame.position);
        this.subscriptions.reload(frame.channel, "gap");
        break;
      case "oversized":
        for (const channel of this.session?.channels ?? []) this.subscriptions.reload(channel, "oversized");
        break;
      case "error":
        this.refused(frame.id, frame.text);
        break;
    }
  }

  private happened(event: RealtimeEvent): void {
    const { channel, position, event_id } = event;
    if (position && this.subscriptions.wants(channel)) {
      if (this.session?.hasBegun(channel)) {
        const step = this.positions.advance(channel, position);
        if (step === "seen") return;
        if (step === "epoch") this.subscriptions.reload(channel, "epoch_changed");
      } else if (this.positions.get(channel)) {
        // One's own channel flows before it is asked for. The answer will bring this again, in its place.
        return;
      }
    } else if (event_id !== null && this.heardOf(event_id)) return;
    this.subscriptions.deliver(event);
  }

  private heardOf(id: string): boolean {
    if (this.ids.has(id)) return true;
    this.ids.add(id);
    for (const oldest of this.ids) {
      if (this.ids.size <= REMEMBERED_IDS) break;
      this.ids.delete(oldest);
    }
    return false;
  }

  private acknowledged(frame: Inbound & { kind: "ack" }): void {
    const { session } = this;
    if (!session) return;
    const command = session.answered(frame.action === "subscribed" ? "subscribe" : "unsubscribe", frame.id);
    const active = new Set(frame.channels);
    this.update(this.snapshot(frame.channels));
    for (const channel of session.retain(active)) this.subscriptions.withhold(channel, "refused");
    for (const channel of frame.action === "subscribed" ? (command?.channels ?? []) : []) {
      if (!command || !session.decides(command, channel)) continue;
      if (active.has(channel)) this.begin(session, channel, frame);
      else this.subscriptions.withhold(channel, "refused");
    }
    this.sync();
  }

  private begin(session: Session, channel: string, frame: Inbound & { kind: "ack" }): void {
    const again = session.begin(channel);
    const cut = frame.positions.get(channel);
    const recovery = frame.recovery.get(channel);
    let missed: string | null = null;
    if (recovery?.recovered === false) missed = recovery.reason;
    else if (!recovery && !again) missed = "no_history";

    // Until replays have come, this client is where it was.
    if (missed === null) {
      if (cut && recovery?.recovered && recovery.count === 0) this.positions.advance(channel, cut);
    } else if (!cut) this.positions.forget(channel);
    else if (again) this.positions.advance(channel, cut);
    else this.positions.set(channel, cut);
    this.subscriptions.begin(channel, missed);
  }

  private refused(id: string | null, text: string): void {
    this.env.log(`The server refused a real-time command: ${sanitise(text)}`);
    const { session } = this;
    const command = session?.answered(null, id);
    for (const channel of command?.action === "subscribe" ? (command.channels ?? []) : []) {
      if (command && session?.decides(command, channel)) this.subscriptions.withhold(channel, "refused");
    }
    this.sync();
  }

  private changed(): void {
    const { connected, readOnly } = this.connection;
    if (!connected || readOnly) this.session = null;
    const entered = readOnly && !this.current.readOnly;
    this.update(this.snapshot(this.current.subscribedChannels));
    if (!entered) return;
    for (const channel of this.subscriptions.wanted().keys())
      this.subscriptions.withhold(channel, "read_only");
  }

  private snapshot(subscribedChannels: readonly string[]): RealtimeState {
    const { connected, readOnly, exhausted, stopped } = this.connection;
    return { connected, readOnly, reconnectExhausted: exhausted, stopped, subscribedChannels };
  }

  private update(next: RealtimeState): void {
    const before = this.current;
    this.current = next;
    if (JSON.stringify(before) === JSON.stringify(next)) return;
    for (const listener of [...this.listeners]) {
      try {
        listener(next);
      } catch (failure) {
        this.env.log(`A listener of the real-time state failed: ${sanitise(String(failure))}`);
      }
    }
  }
}
