import fc from "fast-check";
import { expect, it } from "vitest";
import { RealtimeClient, type RealtimeEvent } from "./client";
import type { Filters } from "./filters";
import { CHANNELS, ModelServer, passes } from "./model.testing";
import { FakeWorld, settle } from "./testing";

/** A view that does as views must: it loads when it is told to, and adds the events to what it has. */
class Follower {
  /** What it has of each channel it has begun with. */
  readonly has = new Map<string, number[]>();
  readonly events = new Map<string, number[]>();
  losses = 0;
  leave = () => {};

  constructor(
    private readonly server: ModelServer,
    readonly channels: string[],
    readonly filters: Filters,
  ) {}

  onEvent = ({ channel, payload }: RealtimeEvent) => {
    const n = payload.n as number;
    this.events.set(channel, [...(this.events.get(channel) ?? []), n]);
    this.has.get(channel)?.push(n);
  };

  onReload = (channel: string, reason: string) => {
    if (reason !== "first") this.losses += 1;
    this.has.set(channel, this.truth(channel));
  };

  truth(channel: string): number[] {
    return this.server
      .truth(channel)
      .flatMap((payload) => (passes(this.filters, payload) ? [payload.n] : []));
  }
}

class Play {
  readonly world = new FakeWorld();
  readonly server = new ModelServer();
  readonly client = new RealtimeClient({ env: this.world });
  readonly present: Follower[] = [];
  readonly gone: { follower: Follower; told: string }[] = [];

  join(channels: string[], kind: number | null): void {
    const follower = new Follower(this.server, channels, kind === null ? {} : { kind });
    follower.leave = this.client.watch(follower);
    this.present.push(follower);
  }

  leave(index: number): void {
    for (const follower of this.present.splice(index, 1)) {
      follower.leave();
      this.gone.push({ follower, told: told(follower) });
    }
  }

  /** The server accepts whoever waits for it. */
  async accept(): Promise<void> {
    await settle();
    if (this.world.sockets.at(-1)?.readyState === 0) this.server.accept(this.world.socket);
    await settle();
  }

  /** Lets everything arrive that is on its way. */
  async end(): Promise<void> {
    for (let i = 0; i < 10; i++) {
      await this.world.pass(1_500);
      await this.accept();
      this.server.obey(1_000);
      this.server.flow(1_000, i % 2 === 0);
    }
  }
}

const told = ({ has, events, losses }: Follower) => JSON.stringify([[...has], [...events], losses]);

type Step = (play: Play) => void | Promise<void>;

/** A kind of step, as often as `weight` says, that shows in a counterexample. */
function step<T>(
  weight: number,
  name: string,
  values: fc.Arbitrary<T>,
  run: (play: Play, values: T) => unknown,
) {
  const arbitrary = values.map(
    (chosen): Step =>
      Object.assign(async (play: Play) => void (await run(play, chosen)), {
        toString: () => `${name} ${JSON.stringify(chosen)}`,
      }),
  );
  return { weight, arbitrary };
}

const channel = fc.constantFrom(...CHANNELS);
const channels = fc.subarray(CHANNELS, { minLength: 1 });
const kind = fc.nat(1);
const few = fc.integer({ min: 1, max: 4 });

const steps = fc.array(
  fc.oneof(
    step(10, "publish", fc.tuple(channel, kind, few), ({ server }, args) => server.publish(...args)),
    step(8, "flow", fc.tuple(few, fc.boolean()), ({ server }, args) => server.flow(...args)),
    step(6, "obey", few, ({ server }, count) => server.obey(count)),
    step(2, "evict", fc.tuple(channel, few), ({ server }, args) => server.evict(...args)),
    step(2, "cut", fc.constant(null), ({ server }) => server.cut()),
    step(1, "restart", fc.constant(null), ({ server }) => server.restart()),
    step(1, "network", fc.constant(null), ({ world }) => world.wake("network")),
    step(4, "pass", fc.constantFrom(1_500, 20_000), ({ world }, ms) => world.pass(ms)),
    step(4, "join", fc.tuple(channels, fc.option(kind)), (play, args) => play.join(...args)),
    step(2, "leave", fc.nat(3), (play, index) => play.leave(index)),
  ),
  { minLength: 20, maxLength: 120, size: "max" },
);

it("every view ends with exactly its events or was told of a loss, and none is brought twice", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const play = new Play();
      play.client.connect();
      await play.accept();
      for (const each of all) {
        await each(play);
        await play.accept();
      }
      await play.end();

      for (const follower of play.present) {
        for (const c of follower.channels) {
          // Loading may show what an event then brings once more; the events themselves never come again.
          expect([...new Set(follower.has.get(c))].sort((a, b) => a - b)).toEqual(follower.truth(c));
          const events = follower.events.get(c) ?? [];
          expect(events).toEqual([...new Set(events)].sort((a, b) => a - b));
        }
        // Crying wolf is no way out: views hear of losses only where the server had some.
        if (play.server.announced === 0) expect(follower.losses).toBe(0);
      }
      for (const { follower, told: before } of play.gone) expect(told(follower)).toBe(before);
      expect(play.world.logged).toEqual([]);
      play.client.disconnect();
      expect(play.world.waiting).toEqual([]);
    }),
    { numRuns: 500 },
  );
}, 60_000);
