import type { Filters } from "./filters";
import type { FakeSocket } from "./testing";

/** Flows to its owner without being asked for. */
export const OWN = "user:1";
export const CHANNELS = ["tasks", "agents", OWN];

export interface Payload {
  n: number;
  kind: number;
}

/** The history of one channel: `all` is the truth, `ring` what the server can still replay. */
class History {
  epoch = "e0";
  top = 0;
  floor = 0;
  ring: { seq: number; payload: Payload }[] = [];
  readonly all: Payload[] = [];
}

/** How far one connection has come in one channel. */
interface Cursor {
  seq: number;
  /** Up to here events are replays. */
  cut: number;
  filters: Filters;
  asked: boolean;
}

/** The rules of a capable server, as short as they can be said; nothing moves until the test says so. */
export class ModelServer {
  /** How often it had to say that something is lost. */
  announced = 0;
  private readonly histories = new Map(CHANNELS.map((channel) => [channel, new History()]));
  private cursors = new Map<string, Cursor>();
  private wire: object[] = [];
  private heard: Record<string, unknown>[] = [];
  private socket: FakeSocket | null = null;
  private published = 0;
  private epochs = 0;

  publish(channel: string, kind: number, step: number): void {
    const history = this.history(channel);
    const payload = { n: ++this.published, kind };
    history.top += step;
    history.ring.push({ seq: history.top, payload });
    history.all.push(payload);
  }

  evict(channel: string, count: number): void {
    const history = this.history(channel);
    for (const { seq } of history.ring.splice(0, count)) history.floor = seq;
  }

  accept(socket: FakeSocket): void {
    this.wire = [];
    this.heard = [];
    const { top } = this.history(OWN);
    this.cursors = new Map([[OWN, { seq: top, cut: top, filters: {}, asked: false }]]);
    this.socket = socket;
    socket.onSent = (command) => this.heard.push(command);
    socket.welcome();
  }

  cut(): void {
    this.socket?.drop();
    this.socket = null;
  }

  /** Comes back with no history. */
  restart(): void {
    this.cut();
    for (const history of this.histories.values()) {
      Object.assign(history, { epoch: `e${++this.epochs}`, top: 0, floor: 0, ring: [] });
    }
  }

  /** Carries out up to `count` commands. */
  obey(count: number): void {
    for (const command of this.heard.splice(0, count)) this.carryOut(command);
  }

  /** Hands over up to `count` frames. */
  flow(count: number, batch: boolean): void {
    for (let i = 0; i < count; i++) {
      if (this.wire.length === 0) this.pull(batch);
      const frame = this.wire.shift();
      if (frame) this.socket?.receive(frame);
    }
  }

  /** What loading over REST shows. */
  truth(channel: string): readonly Payload[] {
    return this.history(channel).all;
  }

  private history(channel: string): History {
    const history = this.histories.get(channel);
    if (!history) throw new Error(`There is no ${channel}.`);
    return history;
  }

  private carryOut({ action, id, ...rest }: Record<string, unknown>): void {
    const channels = (rest.channels ?? []) as string[];
    if (action === "ping") {
      const dealt = [...this.cursors].map(([c, { seq }]) => [c, { epoch: this.history(c).epoch, seq }]);
      this.wire.push({ action: "pong", positions: Object.fromEntries(dealt) });
    } else if (action === "unsubscribe") {
      for (const channel of channels) this.cursors.delete(channel);
      this.wire.push({ action: "unsubscribed", id, channels: this.active() });
    } else {
      const each = channels.map(
        (c) => [c, this.subscribe(c, rest.filters as Filters, rest.recover)] as const,
      );
      const positions = Object.fromEntries(each.map(([c, { position }]) => [c, position]));
      const recovery = Object.fromEntries(
        each.flatMap(([c, { recovery }]) => (recovery ? [[c, recovery]] : [])),
      );
      this.wire.push({ action: "subscribed", id, channels: this.active(), positions, recovery });
    }
  }

  private active(): string[] {
    return [...this.cursors].filter(([, { asked }]) => asked).map(([channel]) => channel);
  }

  private subscribe(channel: string, filters: Filters, recover: unknown) {
    const { epoch, top, floor, ring } = this.history(channel);
    const position = { epoch, seq: top };
    const from = (recover as Record<string, { epoch: string; seq: number }> | undefined)?.[channel];
    let seq = this.cursors.get(channel)?.seq ?? top;
    let recovery: object | null = null;
    if (from) {
      const lost = [
        from.epoch !== epoch && "epoch_changed",
        from.seq < floor && "gap",
        from.seq > top && "ahead",
      ];
      const reason = lost.find(Boolean);
      seq = reason ? top : from.seq;
      if (reason) this.announced += 1;
      const count = ring.filter((each) => each.seq > seq && passes(filters, each.payload)).length;
      recovery = reason ? { recovered: false, reason } : { recovered: true, count };
    }
    this.cursors.set(channel, { seq, cut: top, filters, asked: true });
    return { position, recovery };
  }

  /** Writes what the cursors have not dealt with. */
  private pull(batch: boolean): void {
    const events: object[] = [];
    for (const [channel, cursor] of this.cursors) {
      const { epoch, floor, ring } = this.history(channel);
      if (cursor.seq < floor) {
        this.wire.push({ action: "gap", channel, epoch, from: cursor.seq, to: floor });
        if (cursor.asked) this.announced += 1;
        cursor.seq = floor;
      }
      for (const { seq, payload } of ring.filter((each) => each.seq > cursor.seq)) {
        cursor.seq = seq;
        if (!passes(cursor.filters, payload)) continue;
        const position = { epoch, seq };
        const timestamp = "2026-01-01T00:00:00Z";
        const event = {
          event_type: "happened",
          channel,
          timestamp,
          payload,
          event_id: `${payload.n}`,
          position,
        };
        events.push(seq <= cursor.cut ? { ...event, replayed: true } : event);
      }
    }
    this.wire.push(...(batch && events.length > 0 ? [{ action: "batch", events }] : events));
  }
}

export function passes(filters: Filters, payload: Payload): boolean {
  return filters.kind === undefined || filters.kind === payload.kind;
}
