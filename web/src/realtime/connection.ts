import { MAX_ATTEMPTS, reconnectDelay, type StopReason, verdict } from "./backoff";
import { type Environment, OPEN, type Socket, type Timer, type Wake } from "./environment";
import { Heartbeat } from "./heartbeat";
import { followStream } from "./stream";
import { handshake, type Inbound, PROTOCOL, parse } from "./wire";

const CONNECT_MS = 15_000;
const LOST = 1006;
/** After so many sockets that never opened, something on the way does not let them through. */
const BLOCKED_AFTER = 2;

/** What a connection tells its owner. */
interface ConnectionHooks {
  /** Commands can be sent. `features` of a capable connection, null on a plain one. */
  onReady(features: string[] | null): void;
  onFrame(frame: Inbound): void;
  ping(): void;
  /** Any of the public members may have changed. */
  onState(): void;
}

/** One socket and what belongs to it alone. */
interface Link {
  socket: Socket;
  heartbeat: Heartbeat;
  /** Whether the subprotocol was offered. */
  capable: boolean;
  opened: boolean;
  ready: boolean;
  /** Ends the attempt this link came from. */
  settle(failure?: Error): void;
}

/** Keeps one connection up: tickets, sockets, the way back, and the stream where no socket gets through. */
export class Connection {
  connected = false;
  readOnly = false;
  exhausted = false;
  stopped: StopReason | null = null;

  private wanted = false;
  /** Whatever began in an earlier generation has been called off. */
  private generation = 0;
  private inFlight: Promise<void> | null = null;
  private link: Link | null = null;
  private endStream: (() => void) | null = null;
  /** Either until the next attempt begins, or until the present one has taken too long. */
  private timer: Timer | null = null;
  private attempts = 0;
  private refusals = 0;
  private neverOpened = 0;
  private everOpened = false;
  private everCapable = false;
  private plainNext = false;

  /** `session` names whose events the read-only stream follows; without one there is no such fallback. */
  constructor(
    private readonly env: Environment,
    private readonly session: string | null,
    private readonly hooks: ConnectionHooks,
  ) {}

  /** Resolves once commands can be sent or the attempt was called off, rejects when it has failed. */
  connect(): Promise<void> {
    this.wanted = true;
    if (this.link?.ready || this.endStream) return Promise.resolve();
    if (this.inFlight) return this.inFlight;
    this.clearTimer();
    this.stopped = null;
    this.exhausted = false;
    const attempt = this.attempt();
    this.inFlight = attempt;
    this.hooks.onState();
    return attempt;
  }

  /** Closes, and calls off whatever was about to happen. */
  disconnect(): void {
    this.wanted = false;
    this.drop();
    this.attempts = 0;
    this.refusals = 0;
    this.stopped = null;
    this.exhausted = false;
    this.hooks.onState();
  }

  /** Begins anew at once, with all attempts before it. */
  retry(): void {
    this.drop();
    this.attempts = 0;
    this.refusals = 0;
    this.connect().catch(() => {}); // What follows a failure is decided where it is noticed.
  }

  /** Looks after a connection that may have died unnoticed. */
  wake(wake: Wake): void {
    if (!this.wanted || this.stopped) return;
    const link = this.link?.ready ? this.link : null;
    const busy = this.inFlight !== null || this.endStream !== null;
    if (wake === "network" || (link ? link.heartbeat.overslept() : !busy)) this.retry();
    else link?.heartbeat.probe();
  }

  /** Whether the text is on its way. What is not has to be sent on the next connection. */
  send(text: string): boolean {
    const socket = this.link?.ready ? this.link.socket : null;
    for (let tries = 0; socket?.readyState === OPEN && tries < 2; tries++) {
      try {
        socket.send(text);
        return true;
      } catch {
        // Once more, then not on this connection.
      }
    }
    return false;
  }

  private async attempt(): Promise<void> {
    const generation = this.generation;
    const stale = () => !this.wanted || this.generation !== generation;
    const plain = this.plainNext;
    let socket: Socket;
    try {
      const ticket = await new Promise<string>((resolve, reject) => {
        this.timer = this.env.setTimer(() => reject(new Error("No ticket came in time.")), CONNECT_MS);
        this.env.fetchTicket().then(resolve, reject);
      });
      if (stale()) return;
      const { url, protocols } = handshake(this.env.origin, ticket, plain);
      socket = this.env.openSocket(url, protocols);
    } catch (failure) {
      if (!stale()) this.failed(failure);
      throw failure;
    }
    this.clearTimer();
    this.plainNext = false;
    await this.follow(socket, !plain);
  }

  private failed(failure: unknown): void {
    this.inFlight = null;
    this.clearTimer();
    if ((failure as { status?: unknown } | null)?.status === 401) this.stop("signed-out");
    else this.schedule();
  }

  private follow(socket: Socket, capable: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const link: Link = {
        socket,
        heartbeat: new Heartbeat(
          this.env,
          () => this.hooks.ping(),
          (slept) => (slept ? this.retry() : this.closed(link, LOST, "")),
        ),
        capable,
        opened: false,
        ready: false,
        settle: (failure) => (failure ? reject(failure) : resolve()),
      };
      this.link = link;
      this.timer = this.env.setTimer(() => this.closed(link, LOST, ""), CONNECT_MS);
      socket.onopen = () => this.opened(link);
      socket.onmessage = ({ data }) => this.received(link, data);
      socket.onclose = ({ code, reason }) => this.closed(link, code, reason);
    });
  }

  private opened(link: Link): void {
    if (this.link !== link) return;
    link.opened = true;
    this.everOpened = true;
    this.neverOpened = 0;
    link.capable &&= link.socket.protocol === PROTOCOL;
    // A capable connection is ready once the server has said so: until then it may still refuse.
    if (link.capable) this.everCapable = true;
    else this.ready(link, null);
  }

  private ready(link: Link, features: string[] | null): void {
    this.clearTimer();
    this.inFlight = null;
    this.attempts = 0;
    link.ready = true;
    this.connected = true;
    link.heartbeat.start();
    this.hooks.onReady(features);
    this.hooks.onState();
    link.settle();
  }

  private received(link: Link, data: unknown): void {
    if (this.link !== link) return;
    const frame = parse(data);
    if (!frame) return;
    this.refusals = 0;
    if (frame.kind === "ready") {
      if (link.capable && !link.ready) this.ready(link, frame.features);
      return;
    }
    if (frame.kind === "pong") link.heartbeat.pong();
    this.hooks.onFrame(frame);
  }

  private closed(link: Link, code: number, reason: string): void {
    if (this.link !== link) return;
    link.settle(new Error(`The connection was closed with code ${code}.`));
    this.drop();
    if (code === LOST && !link.opened && !this.everOpened) {
      this.neverOpened += 1;
      // A browser does not say that the subprotocol was not picked, only that there is no connection.
      this.plainNext = link.capable && !this.everCapable;
    }
    if (code === 4001) this.refusals += 1;
    const next = verdict(code, reason, this.refusals);
    if (this.neverOpened >= BLOCKED_AFTER && this.session !== null) this.readStream(this.session);
    else if (next === "reconnect") this.schedule();
    else this.stop(next);
  }

  private readStream(session: string): void {
    this.readOnly = true;
    const failed = () => {
      this.drop();
      this.schedule();
    };
    this.endStream = followStream(this.env, session, {
      onFlow: (flowing) => {
        if (flowing) this.attempts = 0;
        this.connected = flowing;
        this.hooks.onState();
      },
      onEvent: (event) => this.hooks.onFrame({ kind: "events", events: [event] }),
      onRevoked: (reason) => {
        if (reason === "backend_unavailable") return failed();
        this.drop();
        this.stop("signed-out");
      },
      onFailed: failed,
    });
    this.hooks.onState();
  }

  private schedule(): void {
    if (this.attempts >= MAX_ATTEMPTS) {
      this.exhausted = true;
    } else {
      this.timer = this.env.setTimer(
        () => {
          this.timer = null;
          this.connect().catch(() => {});
        },
        reconnectDelay(this.attempts++, this.env.random),
      );
    }
    this.hooks.onState();
  }

  private stop(reason: StopReason): void {
    this.stopped = reason;
    this.hooks.onState();
  }

  /** Lets go of socket, stream, timers and the attempt in flight; what they still say is heard by nobody. */
  private drop(): void {
    const { link, endStream } = this;
    this.generation += 1;
    this.inFlight = null;
    this.link = null;
    this.endStream = null;
    this.connected = false;
    this.readOnly = false;
    this.clearTimer();
    link?.heartbeat.stop();
    link?.socket.close();
    link?.settle();
    endStream?.();
  }

  private clearTimer(): void {
    if (this.timer !== null) this.env.clearTimer(this.timer);
    this.timer = null;
  }
}
