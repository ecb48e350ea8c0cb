import { beforeEach, describe, expect, it } from "vitest";
import { RealtimeClient, type View } from "./client";
import { FakeWorld, settle } from "./testing";

let world: FakeWorld;
let client: RealtimeClient;

beforeEach(() => {
  world = new FakeWorld();
  client = new RealtimeClient({ env: world });
});

/** A view that writes down what it is told. */
function recorder(channels: string[], filters?: View["filters"]) {
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

async function connect(welcome = () => world.socket.welcome()) {
  client.connect().catch(() => {});
  await settle();
  welcome();
}

async function reconnect(welcome?: () => void) {
  world.socket.drop();
  await world.pass(1_200);
  if (welcome) welcome();
  else world.socket.welcome();
}

const plainly = () => world.socket.accept();

/** Acknowledges the newest subscription; `positions` are numbers in the epoch `e`. */
function acknowledge(channels: string[], positions: Record<string, number> = {}, recovery: object = {}) {
  world.socket.receive({
    action: "subscribed",
    id: world.socket.commands("subscribe").at(-1)?.id,
    channels,
    positions: Object.fromEntries(Object.entries(positions).map(([c, seq]) => [c, { epoch: "e", seq }])),
    recovery,
  });
}

const event = (channel: string, payload: object, seq?: number, epoch = "e") => ({
  version: 1,
  event_type: "t",
  channel,
  timestamp: "2026-01-01T00:00:00Z",
  payload,
  ...(seq !== undefined && { position: { epoch, seq } }),
});

const subscribed = () =>
  world.socket.commands("subscribe").map(({ channels, filters }) => [channels, filters]);
const unsubscribed = () => world.socket.commands("unsubscribe").map(({ channels }) => channels);

describe("views", () => {
  it("share one subscription, which ends with the last of them", async () => {
    await connect();
    const leave = [client.watch(recorder(["tasks"]).view), client.watch(recorder(["tasks"]).view)];
    expect(subscribed()).toEqual([[["tasks"], {}]]);
    leave[0]?.();
    expect(unsubscribed()).toEqual([]);
    leave[1]?.();
    leave[1]?.();
    expect(unsubscribed()).toEqual([["tasks"]]);
  });

  it("with the same filters in another order ask once", async () => {
    await connect();
    client.watch(recorder(["tasks"], { a: 1, b: "x" }).view);
    client.watch(recorder(["tasks"], { b: "x", a: 1 }).view);
    expect(subscribed()).toEqual([[["tasks"], { a: 1, b: "x" }]]);
  });

  it("with other filters get their own events out of one wider subscription", async () => {
    await connect();
    const [one, two] = [recorder(["tasks"], { a: 1 }), recorder(["tasks"], { a: 2 })];
    client.watch(one.view);
    acknowledge(["tasks"]);
    const leave = client.watch(two.view);
    acknowledge(["tasks"]);
    for (const a of [1, 2, "1", null]) world.socket.receive(event("tasks", { a }));
    world.socket.receive(event("tasks", {}));
    leave();
    expect(one.told).toEqual(["tasks: first", 'tasks {"a":1}']);
    expect(two.told).toEqual(["tasks: first", 'tasks {"a":2}']);
    expect(subscribed()).toEqual([
      [["tasks"], { a: 1 }],
      [["tasks"], {}],
      [["tasks"], { a: 1 }],
    ]);
  });

  it("that join a flowing channel begin at once, without another command", async () => {
    await connect();
    client.watch(recorder(["tasks"]).view);
    acknowledge(["tasks"]);
    const late = recorder(["tasks"]);
    client.watch(late.view);
    expect(late.told).toEqual([]);
    await settle();
    expect(late.told).toEqual(["tasks: first"]);
    expect(subscribed()).toHaveLength(1);
  });

  it("that leave during the connect are told nothing", async () => {
    const gone = recorder(["tasks"]);
    const leave = client.watch(gone.view);
    client.connect();
    leave();
    await settle();
    world.socket.welcome();
    world.socket.receive(event("tasks", {}));
    expect(world.socket.sent).toEqual([]);
    expect(gone.told).toEqual([]);
  });

  it("that leave and come back begin with the answer to their own command", async () => {
    await connect();
    client.watch(recorder(["tasks"]).view)();
    const back = recorder(["tasks"]);
    client.watch(back.view);
    const [first, second] = world.socket.commands("subscribe").map(({ id }) => id);
    world.socket.receive({ action: "subscribed", id: first, channels: ["tasks"] });
    expect(back.told).toEqual([]);
    world.socket.receive({ action: "subscribed", id: second, channels: ["tasks"] });
    expect(back.told).toEqual(["tasks: first"]);
  });

  it("do not suffer from each other's exceptions", async () => {
    await connect();
    const [healthy, all] = [recorder(["tasks"]), [] as string[]];
    const fail = () => {
      throw new Error("\u202Ebroken\n");
    };
    client.watch({ channels: ["tasks"], onEvent: fail, onReload: fail });
    client.watch(healthy.view);
    client.onEvent(fail);
    client.onEvent(({ event_type }) => all.push(event_type));
    acknowledge(["tasks"]);
    world.socket.receive(event("tasks", {}));
    expect(healthy.told).toEqual(["tasks: first", "tasks {}"]);
    expect(all).toEqual(["t"]);
    expect(world.logged).toEqual(Array(3).fill("A handler of real-time events failed: Error: broken"));
  });

  it("may end another one while an event is on its way", async () => {
    await connect();
    const other = recorder(["tasks"]);
    let leave = () => {};
    client.watch({ channels: ["tasks"], onEvent: () => leave(), onReload() {} });
    leave = client.watch(other.view);
    acknowledge(["tasks"]);
    world.socket.receive(event("tasks", {}));
    expect(other.told).toEqual(["tasks: first"]);
  });

  it("are forgotten by disconnect", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    client.onEvent(() => view.told.push("any"));
    await connect();
    acknowledge(["tasks"]);
    client.disconnect();
    await connect();
    world.socket.receive(event("tasks", {}));
    expect(world.socket.sent).toEqual([]);
    expect(view.told).toEqual(["tasks: first"]);
    expect(client.state.subscribedChannels).toEqual([]);
  });

  it("with filters the server would refuse are refused here", () => {
    const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 1]));
    client.watch(recorder(["tasks"], many(10)).view);
    client.watch(recorder(["tasks"], { a: "x".repeat(256) }).view);
    for (const filters of [many(11), { a: "x".repeat(257) }, { a: null }, { a: Number.NaN }, { a: [] }]) {
      expect(() => client.watch(recorder(["tasks"], filters as View["filters"]).view)).toThrow(RangeError);
    }
  });
});

describe("commands", () => {
  it("are no larger than the server reads", async () => {
    const channels = Array.from({ length: 200 }, (_, i) => `channel-${i}-${"é".repeat(20)}`);
    client.watch(recorder(channels).view);
    await connect();
    const sent = world.socket.commands("subscribe");
    expect(sent.flatMap((command) => command.channels)).toEqual(channels);
    expect(sent.length).toBeGreaterThan(1);
    for (const command of sent) {
      expect(new TextEncoder().encode(JSON.stringify(command)).length).toBeLessThanOrEqual(4_096);
    }
  });

  it("that cannot be sent are tried once more, and else with the next connection", async () => {
    await connect();
    world.socket.failures = 1;
    client.watch(recorder(["tasks"]).view);
    expect(subscribed()).toEqual([[["tasks"], {}]]);
    world.socket.failures = 2;
    client.watch(recorder(["agents"]).view);
    expect(subscribed()).toHaveLength(1);
    await reconnect();
    expect(subscribed()).toEqual([[["tasks", "agents"], {}]]);
  });

  it("are sent again when a plain server had no room for the answer", async () => {
    client.watch(recorder(["tasks"]).view);
    await connect(plainly);
    await world.pass(20_000);
    world.socket.receive({ action: "pong" });
    expect(subscribed()).toHaveLength(2);
    world.socket.receive({ action: "subscribed", channels: ["tasks"] });
    await world.pass(20_000);
    world.socket.receive({ action: "pong" });
    expect(subscribed()).toHaveLength(2);
  });

  it("that a plain server did not carry out are undone here too", async () => {
    await connect(plainly);
    client.watch(recorder(["tasks"]).view)();
    world.socket.receive({ action: "subscribed", channels: ["tasks"] });
    await world.pass(20_000);
    world.socket.receive({ action: "pong" });
    expect(unsubscribed()).toEqual([["tasks"], ["tasks"]]);
  });
});

describe("what the server says", () => {
  it("of the active channels is the state", async () => {
    const states: (readonly string[])[] = [];
    client.onState(({ subscribedChannels }) => states.push(subscribedChannels));
    client.watch(recorder(["tasks", "budget"]).view);
    await connect();
    acknowledge(["tasks"]);
    expect(client.state.subscribedChannels).toEqual(["tasks"]);
    expect(states.at(-1)).toEqual(["tasks"]);
  });

  it("of a channel that is not for this account reaches the view", async () => {
    const view = recorder(["tasks", "budget"]);
    client.watch(view.view);
    await connect();
    acknowledge(["tasks"]);
    expect(view.told).toEqual(["tasks: first", "budget: refused"]);
  });

  it("of a channel it takes away reaches the view", async () => {
    const view = recorder(["tasks", "budget"]);
    client.watch(view.view);
    await connect();
    acknowledge(["budget", "tasks"]);
    world.socket.receive({ action: "unsubscribed", channels: ["tasks"] });
    expect(view.told.at(-1)).toBe("budget: refused");
    expect(subscribed()).toHaveLength(1);
  });

  it("against a command is logged, short and harmless, and reaches the view", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect();
    const error = `no\u0007\u202E\u2028${"x".repeat(300)}`;
    world.socket.receive({ error, id: world.socket.sent[0]?.id });
    expect(world.logged).toEqual([`The server refused a real-time command: no${"x".repeat(198)}`]);
    expect(view.told).toEqual(["tasks: refused"]);
  });

  it("is ignored when it is no text, no object, of another version, or none of what is known", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect();
    acknowledge(["tasks"]);
    const { onmessage } = world.socket;
    onmessage?.({ data: new ArrayBuffer(8) });
    for (const text of ["", "{", "[]", "null", "1", '"x"', "{}", '{"action":"dance"}', '{"action":1}']) {
      onmessage?.({ data: text });
    }
    for (const flaw of [
      { version: 2 },
      { version: "1" },
      { event_type: 7 },
      { channel: " " },
      { channel: null },
      { timestamp: 0 },
    ]) {
      world.socket.receive({ ...event("tasks", { flaw: true }), ...flaw });
    }
    for (const frame of [
      { action: "gap" },
      { action: "batch", events: 1 },
      { action: "pong", positions: [1] },
    ]) {
      world.socket.receive(frame);
    }
    expect(view.told).toEqual(["tasks: first"]);
    world.socket.receive({ ...event("tasks", { fine: true }), version: undefined, payload: [] });
    expect(view.told).toEqual(["tasks: first", "tasks {}"]);
  });

  it("is not read above 32 768 bytes, and the views know", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect();
    acknowledge(["tasks"]);
    const frame = (size: number) => JSON.stringify(event("tasks", { x: "é".repeat(size) }));
    const room = 32_768 - new TextEncoder().encode(frame(0)).length;
    world.socket.receive(frame(Math.floor(room / 2)));
    expect(view.told).toHaveLength(2);
    world.socket.receive(frame(Math.floor(room / 2) + 1));
    expect(view.told.slice(2)).toEqual(["tasks: oversized"]);
  });

  it("in a batch is as if it came alone", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect();
    expect(world.socket.sent[0]).toMatchObject({ batch: true });
    acknowledge(["tasks"], { tasks: 1 });
    const events = [event("tasks", { n: 1 }, 1), event("tasks", { n: 2 }, 2), 7, event("tasks", { n: 3 }, 3)];
    world.socket.receive({ action: "batch", events });
    expect(view.told).toEqual(["tasks: first", 'tasks {"n":2}', 'tasks {"n":3}']);
  });
});

describe("positions", () => {
  it("are continued, and what is replayed is told as such and once", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect();
    acknowledge(["tasks"], { tasks: 3 });
    world.socket.receive(event("tasks", { n: 5 }, 5));
    await reconnect();
    expect(world.socket.sent[0]?.recover).toEqual({ tasks: { epoch: "e", seq: 5 } });
    acknowledge(["tasks"], { tasks: 9 }, { tasks: { recovered: true, count: 1 } });
    world.socket.receive({ ...event("tasks", { n: 5 }, 5), replayed: true });
    world.socket.receive({ ...event("tasks", { n: 9 }, 9), replayed: true });
    expect(view.told).toEqual(["tasks: first", 'tasks {"n":5}', 'tasks {"n":9} again']);
  });

  it("move to the cut only when nothing before it is to come", async () => {
    client.watch(recorder(["tasks", "agents"]).view);
    await connect();
    acknowledge(["agents", "tasks"], { tasks: 3, agents: 3 });
    await reconnect();
    const recovery = { tasks: { recovered: true, count: 2 }, agents: { recovered: true, count: 0 } };
    acknowledge(["agents", "tasks"], { tasks: 9, agents: 9 }, recovery);
    await reconnect();
    expect(world.socket.sent[0]?.recover).toEqual({
      tasks: { epoch: "e", seq: 3 },
      agents: { epoch: "e", seq: 9 },
    });
  });

  it("follow the pong where filters hide what happens, and never go back", async () => {
    const view = recorder(["tasks"], { a: 1 });
    client.watch(view.view);
    await connect();
    acknowledge(["tasks"], { tasks: 3 });
    const pong = (seq: number, epoch = "e") =>
      world.socket.receive({
        action: "pong",
        positions: { tasks: { epoch, seq }, other: { epoch, seq }, bad: { epoch, seq: 0.5 } },
      });
    pong(20);
    pong(10);
    world.socket.receive(event("tasks", { a: 1 }, 15));
    world.socket.receive(event("tasks", { a: 1 }, 21));
    expect(view.told).toEqual(["tasks: first", 'tasks {"a":1}']);
    pong(2, "other epoch");
    expect(view.told.at(-1)).toBe("tasks: epoch_changed");
    await reconnect();
    expect(world.socket.sent[0]?.recover).toEqual({ tasks: { epoch: "other epoch", seq: 2 } });
  });

  for (const reason of ["epoch_changed", "gap", "ahead", "disabled", "too_large"]) {
    it(`begin anew after ${reason}, which the view is told`, async () => {
      const view = recorder(["tasks"]);
      client.watch(view.view);
      await connect();
      acknowledge(["tasks"], { tasks: 100 });
      await reconnect();
      acknowledge(["tasks"], { tasks: 7 }, { tasks: { recovered: false, reason } });
      world.socket.receive(event("tasks", {}, 8));
      expect(view.told).toEqual(["tasks: first", `tasks: ${reason}`, "tasks {}"]);
    });
  }

  it("that are lost before a view has begun do not begin it", async () => {
    const [narrow, wide] = [recorder(["tasks"], { a: 1 }), recorder(["tasks"])];
    client.watch(narrow.view);
    await connect();
    acknowledge(["tasks"], { tasks: 3 });
    client.watch(wide.view);
    world.socket.receive({ action: "gap", channel: "tasks", epoch: "e", from: 4, to: 9 });
    acknowledge(["tasks"], { tasks: 9 }, { tasks: { recovered: true, count: 0 } });
    expect(narrow.told).toEqual(["tasks: first", "tasks: gap"]);
    expect(wide.told).toEqual(["tasks: first"]);
  });

  it("jump over an announced gap, which the view is told", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect();
    acknowledge(["tasks"], { tasks: 3 });
    world.socket.receive({ action: "gap", channel: "tasks", epoch: "e", from: 4, to: 9 });
    world.socket.receive({ action: "gap", channel: "agents", epoch: "e", from: 4, to: 9 });
    world.socket.receive(event("tasks", {}, 10));
    expect(view.told).toEqual(["tasks: first", "tasks: gap", "tasks {}"]);
  });

  it("of another epoch in a live event are announced", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect();
    acknowledge(["tasks"], { tasks: 30 });
    world.socket.receive(event("tasks", {}, 1, "new"));
    expect(view.told).toEqual(["tasks: first", "tasks: epoch_changed", "tasks {}"]);
  });

  it("do not move with what arrives before the answer to the subscription", async () => {
    const view = recorder(["user:1"]);
    client.watch(view.view);
    await connect();
    world.socket.receive(event("user:1", { n: 1 }, 1));
    acknowledge(["user:1"], { "user:1": 1 });
    await reconnect();
    world.socket.receive(event("user:1", { n: 3 }, 3));
    acknowledge(["user:1"], { "user:1": 3 }, { "user:1": { recovered: true, count: 2 } });
    for (const n of [2, 3]) world.socket.receive({ ...event("user:1", { n }, n), replayed: true });
    expect(view.told).toEqual([
      'user:1 {"n":1}',
      "user:1: first",
      'user:1 {"n":2} again',
      'user:1 {"n":3} again',
    ]);
  });

  it("are forgotten with the last view of their channel", async () => {
    await connect();
    const leave = client.watch(recorder(["tasks"]).view);
    acknowledge(["tasks"], { tasks: 3 });
    leave();
    client.watch(recorder(["tasks"]).view);
    expect(world.socket.commands("subscribe").at(-1)).not.toHaveProperty("recover");
    acknowledge(["tasks"], { tasks: 7 });
    await reconnect();
    expect(world.socket.sent[0]?.recover).toEqual({ tasks: { epoch: "e", seq: 7 } });
  });

  it("do not exist on a plain connection, so each new one is announced as a loss", async () => {
    const view = recorder(["tasks"]);
    client.watch(view.view);
    await connect(plainly);
    world.socket.receive({ action: "subscribed", channels: ["tasks"] });
    world.socket.receive({ ...event("tasks", { n: 1 }), event_id: "i" });
    world.socket.receive({ ...event("tasks", { n: 1 }), event_id: "i" });
    await reconnect(plainly);
    world.socket.receive({ action: "subscribed", channels: ["tasks"] });
    expect(view.told).toEqual(["tasks: first", 'tasks {"n":1}', "tasks: no_history"]);
    expect(world.socket.sent).toEqual([{ action: "subscribe", channels: ["tasks"], filters: {} }]);
  });
});
