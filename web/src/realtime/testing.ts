import type { Environment, EventStream, Socket, Wake } from "./environment";

/** A socket whose other end is the test. */
export class FakeSocket implements Socket {
  readyState = 0;
  protocol = "";
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: ((close: { code: number; reason: string }) => void) | null = null;
  readonly sent: Record<string, unknown>[] = [];
  /** How many of the next sends fail. */
  failures = 0;
  /** Called with what the client sends. */
  onSent: (command: Record<string, unknown>) => void = () => {};

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {}

  send(text: string): void {
    if (this.failures > 0) {
      this.failures -= 1;
      throw new Error("cannot send");
    }
    const command = JSON.parse(text);
    this.sent.push(command);
    this.onSent(command);
  }

  close(): void {
    this.readyState = 3;
  }

  /** The server accepts, with this subprotocol. */
  accept(protocol = ""): void {
    this.readyState = 1;
    this.protocol = protocol;
    this.onopen?.();
  }

  /** A capable server accepts and says that it is ready. */
  welcome(features = ["recover", "gap", "batch"]): void {
    this.accept("quarterdeck.v1");
    this.receive({ action: "auth_ok", protocol: "quarterdeck.v1", connection_id: "c", limits: {}, features });
  }

  receive(frame: unknown): void {
    this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  drop(code = 1006, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** The commands of one kind. */
  commands(action: string): Record<string, unknown>[] {
    return this.sent.filter((command) => command.action === action);
  }
}

/** A stream whose other end is the test. */
export class FakeStream implements EventStream {
  readyState = 0;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  private readonly listeners = new Map<string, (message: { data: string }) => void>();

  constructor(readonly url: string) {}

  addEventListener(type: string, listener: (message: { data: string }) => void): void {
    this.listeners.set(type, listener);
  }

  close(): void {
    this.readyState = 2;
  }

  accept(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  fail(readyState: number): void {
    this.readyState = readyState;
    this.onerror?.();
  }

  receive(type: string, data: unknown): void {
    this.listeners.get(type)?.({ data: JSON.stringify(data) });
  }
}

/** A world that stands still until the test moves it. */
export class FakeWorld implements Environment {
  origin = "https://deck.example";
  readonly sockets: FakeSocket[] = [];
  readonly streams: FakeStream[] = [];
  readonly logged: string[] = [];
  tickets = 0;
  /** What the next tickets are; by default they come at once. */
  ticket: () => Promise<string> = async () => `ticket-${this.tickets}`;
  chance = 0.5;
  time = 0;
  private readonly timers = new Map<number, { at: number; run: () => void }>();
  private lastTimer = 0;
  private readonly wakers = new Set<(wake: Wake) => void>();

  now = () => this.time;
  random = () => this.chance;
  log = (message: string) => void this.logged.push(message);

  setTimer = (run: () => void, ms: number) => {
    this.timers.set(++this.lastTimer, { at: this.time + ms, run });
    return this.lastTimer;
  };

  clearTimer = (timer: number) => void this.timers.delete(timer);

  fetchTicket = () => {
    this.tickets += 1;
    return this.ticket();
  };

  openSocket = (url: string, protocols: string[]) => {
    const socket = new FakeSocket(url, protocols);
    this.sockets.push(socket);
    return socket;
  };

  openStream = (url: string) => {
    const stream = new FakeStream(url);
    this.streams.push(stream);
    return stream;
  };

  onWake = (listener: (wake: Wake) => void) => {
    this.wakers.add(listener);
    return () => this.wakers.delete(listener);
  };

  wake(wake: Wake): void {
    for (const waker of this.wakers) waker(wake);
  }

  /** The newest socket. */
  get socket(): FakeSocket {
    return last(this.sockets);
  }

  /** The newest stream. */
  get stream(): FakeStream {
    return last(this.streams);
  }

  /** How long until each timer. */
  get waiting(): number[] {
    return [...this.timers.values()].map(({ at }) => at - this.time).sort((a, b) => a - b);
  }

  /** Lets `ms` pass, timer by timer. */
  async pass(ms: number): Promise<void> {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [timer, { at, run }] = due;
      this.timers.delete(timer);
      this.time = Math.max(this.time, at);
      run();
      await settle();
    }
    this.time = end;
  }

  /** The machine sleeps: time passes, and what was due meanwhile happens at the end. */
  async sleep(ms: number): Promise<void> {
    this.time += ms;
    await this.pass(0);
  }
}

/** Lets everything happen that needs no time. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

function last<T>(all: readonly T[]): T {
  const newest = all.at(-1);
  if (newest === undefined) throw new Error("There is none yet.");
  return newest;
}
