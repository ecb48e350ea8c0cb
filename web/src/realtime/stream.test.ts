import { beforeEach, describe, expect, it } from "vitest";
import { begin, client, connect, world } from "./scene.testing";
import { settle } from "./testing";

beforeEach(() => begin({ session: "s-1" }));

describe("the read-only stream", () => {
  const event = { id: "evt-1", type: "run_started", timestamp: "t", session_id: "s-1", payload: { a: 1 } };

  /** A client for which no socket opened, twice. */
  async function blocked() {
    client.connect().catch(() => {});
    await settle();
    world.socket.drop();
    await world.pass(1_200);
    world.socket.drop();
    await settle();
  }

  it("takes over after two sockets that never opened, and alone", async () => {
    await blocked();
    expect(world.stream.url).toBe("/api/v1/events/stream?session_id=s-1");
    expect(client.state).toMatchObject({ connected: false, readOnly: true });
    world.stream.accept();
    expect(client.state).toMatchObject({ connected: true, readOnly: true });
    await client.connect();
    await world.pass(3_600_000);
    expect([world.sockets.length, world.streams.length]).toEqual([2, 1]);
  });

  it("never takes over once a socket has opened", async () => {
    await connect();
    for (let round = 0; round < 5; round++) {
      world.socket.drop();
      await world.pass(30_000);
    }
    expect(world.streams).toEqual([]);
  });

  it("tells views that their channels stand still, and brings its events once", async () => {
    const reloads: string[] = [];
    const events: unknown[] = [];
    client.watch({
      channels: ["tasks"],
      onEvent() {},
      onReload: (...reload) => reloads.push(reload.join(" ")),
    });
    client.watch({
      channels: ["events"],
      filters: { session_id: "s-1" },
      onEvent: ({ event_type, payload }) => events.push([event_type, payload]),
      onReload() {},
    });
    await blocked();
    world.stream.accept();
    world.stream.receive("run_started", event);
    world.stream.receive("run_started", event);
    world.stream.receive("run_started", "no object");
    expect(reloads).toEqual(["tasks read_only"]);
    expect(events).toEqual([["run_started", { session_id: "s-1", a: 1 }]]);
  });

  it("gives way to another try with a socket when it cannot be had", async () => {
    await blocked();
    world.stream.fail(2);
    expect(client.state.readOnly).toBe(false);
    await world.pass(4_800);
    expect(world.sockets).toHaveLength(3);
    world.socket.welcome();
    expect(client.state).toMatchObject({ connected: true, readOnly: false });
  });

  it("waits for the browser to open it again", async () => {
    await blocked();
    world.stream.accept();
    world.stream.fail(0);
    expect(client.state).toMatchObject({ connected: false, readOnly: true });
    world.stream.accept();
    expect(client.state.connected).toBe(true);
  });

  it("ends with the session, but not with the server's trouble", async () => {
    await blocked();
    world.stream.receive("revoked", { reason: "backend_unavailable" });
    expect(client.state).toMatchObject({ readOnly: false, stopped: null });
    await world.pass(4_800);
    world.socket.drop();
    world.stream.receive("revoked", { reason: "session_revoked" });
    expect(client.state).toMatchObject({ readOnly: false, stopped: "signed-out" });
    expect(world.waiting).toEqual([]);
  });

  it("gives way to a socket when asked to, or in another network", async () => {
    for (const again of [() => client.retry(), () => world.wake("network")]) {
      await blocked();
      const { stream } = world;
      again();
      await settle();
      expect(stream.readyState).toBe(2);
      world.socket.drop(1006);
      client.disconnect();
    }
  });

  it("is not there without a session to follow", async () => {
    begin();
    await blocked();
    await world.pass(10_000);
    expect(world.streams).toEqual([]);
    expect(world.sockets.length).toBeGreaterThan(2);
  });
});
