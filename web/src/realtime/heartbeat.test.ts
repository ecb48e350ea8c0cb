import { beforeEach, describe, expect, it } from "vitest";
import { ApiError } from "../api";
import { begin, client, connect, world } from "./scene.testing";
import { settle } from "./testing";

beforeEach(() => begin());

describe("the heartbeat", () => {
  it("asks every twenty seconds, a twentieth more or less", async () => {
    for (const [chance, ms] of [
      [0, 19_000],
      [0.5, 20_000],
    ] as const) {
      world.chance = chance;
      await connect();
      expect(world.waiting).toEqual([ms]);
      client.disconnect();
    }
  });

  it("keeps a connection that answers", async () => {
    await connect();
    world.socket.onSent = () => world.socket.receive({ action: "pong" });
    await world.pass(600_000);
    expect(world.sockets).toHaveLength(1);
    expect(world.socket.commands("ping")).toHaveLength(30);
  });

  it("replaces a connection that does not answer within ten seconds", async () => {
    await connect();
    await world.pass(20_000 + 9_999);
    expect(client.state.connected).toBe(true);
    await world.pass(1);
    expect(client.state.connected).toBe(false);
    expect(world.socket.readyState).toBe(3);
    await world.pass(1_200);
    expect(world.sockets).toHaveLength(2);
  });

  it("notices that the machine slept and connects again at once", async () => {
    await connect();
    await world.sleep(3_600_000);
    expect(world.sockets).toHaveLength(2);
  });

  it("notices a sleep between question and answer", async () => {
    await connect();
    await world.pass(25_000);
    await world.sleep(3_600_000);
    expect(world.sockets).toHaveLength(2);
  });

  it("does not take a slow timer of a page in the background for sleep", async () => {
    await connect();
    await world.sleep(80_000);
    expect(world.sockets).toHaveLength(1);
    expect(world.socket.commands("ping")).toHaveLength(1);
  });
});

describe("waking up", () => {
  it("replaces the connection at once when the network is back", async () => {
    await connect();
    world.wake("network");
    await settle();
    expect(world.sockets).toHaveLength(2);
  });

  it("asks whether the connection is alive when somebody looks", async () => {
    await connect();
    world.wake("look");
    expect(world.socket.commands("ping")).toHaveLength(1);
    await world.pass(10_000);
    expect(client.state.connected).toBe(false);
  });

  it("does not wait any longer when somebody looks, even after giving up", async () => {
    world.ticket = () => Promise.reject(new ApiError("", 0));
    client.connect().catch(() => {});
    await world.pass(3_600_000);
    expect(client.state.reconnectExhausted).toBe(true);
    world.ticket = async () => "t";
    world.wake("look");
    await settle();
    expect(world.sockets).toHaveLength(1);
    world.wake("look");
    await settle();
    expect(world.sockets).toHaveLength(1);
  });
});
