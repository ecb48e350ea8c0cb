import { beforeEach, describe, expect, it } from "vitest";
import { acknowledge, begin, client, connect, event, recorder, world } from "./scene.testing";

beforeEach(() => begin());

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
    expect(world.socket.sent).toHaveLength(1);
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
