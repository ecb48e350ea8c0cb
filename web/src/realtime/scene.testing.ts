import { RealtimeClient, type RealtimeOptions, type View } from "./client";
import { FakeWorld, settle } from "./testing";

/** What the present test plays with; {@link begin} makes it anew. */
export let world: FakeWorld;
export let client: RealtimeClient;

export function begin(options: RealtimeOptions = {}): void {
  world = new FakeWorld();
  client = new RealtimeClient({ env: world, ...options });
}

/** A view that writes down what it is told. */
export function recorder(channels: string[], filters?: View["filters"]) {
  const told: string[] = [];
  const view: View = {
    channels,
    ...(filters && { filters }),
    onEvent: ({ channel, payload, replayed }) =>
      told.push(`${channel} ${JSON.stringify(payload)}${replayed ? " again" : ""}`),
    onReload: (channel, reason) => told.push(`${channel}: ${reason}`),
  };
  return { told, view };
}

/** The server accepts as one that knows nothing of subprotocols. */
export const plainly = () => world.socket.accept();
const capably = () => world.socket.welcome();

/** Connects, by default to a capable server. */
export async function connect(accept = capably): Promise<void> {
  const connecting = client.connect();
  await settle();
  accept();
  await connecting;
}

/** Loses the connection and gets another. */
export async function reconnect(accept = capably): Promise<void> {
  world.socket.drop();
  await world.pass(1_200);
  accept();
}

/** Acknowledges the newest subscription; `positions` are numbers in the epoch `e`. */
export function acknowledge(
  channels: string[],
  positions: Record<string, number> = {},
  recovery: object = {},
) {
  world.socket.receive({
    action: "subscribed",
    id: world.socket.commands("subscribe").at(-1)?.id,
    channels,
    positions: Object.fromEntries(Object.entries(positions).map(([c, seq]) => [c, { epoch: "e", seq }])),
    recovery,
  });
}

/** An event as it comes over the wire; with `seq`, positioned. */
export const event = (channel: string, payload: object, seq?: number, epoch = "e") => ({
  version: 1,
  event_type: "t",
  channel,
  timestamp: "2026-01-01T00:00:00Z",
  payload,
  ...(seq !== undefined && { position: { epoch, seq } }),
});
