import { beforeEach, describe, expect, it } from "vitest";
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

beforeEach(() => begin());

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
