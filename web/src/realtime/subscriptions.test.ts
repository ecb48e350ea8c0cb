import { beforeEach, describe, expect, it } from "vitest";
import type { View } from "./client";
import {
  acknowledge,
  begin,
  client,
  connect,
  event,
  plainly,
  reconnect,
  recorder,
  world,
} from "./scene.testing";
import { settle } from "./testing";

beforeEach(() => begin());

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
