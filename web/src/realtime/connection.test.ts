import { beforeEach, describe, expect, it } from "vitest";
import { ApiError } from "../api";
import { reconnectDelay } from "./backoff";
import { begin, client, connect, world } from "./scene.testing";
import { settle } from "./testing";

beforeEach(() => begin({ session: "s-1" }));

/** Tickets that come when the test says so. */
function heldTickets() {
  const held: { resolve(ticket: string): void; reject(failure: unknown): void }[] = [];
  world.ticket = () => new Promise((resolve, reject) => held.push({ resolve, reject }));
  return held;
}

describe("the handshake", () => {
  it("carries the ticket beside the subprotocol and not in the URL", async () => {
    await connect();
    expect(world.socket.url).toBe("wss://deck.example/api/v1/ws");
    expect(world.socket.protocols).toEqual(["quarterdeck.v1", "quarterdeck.ticket.ticket-1"]);
  });

  it("is encrypted if and only if the page is", async () => {
    world.origin = "http://127.0.0.1:3001";
    client.connect();
    await settle();
    expect(world.socket.url).toBe("ws://127.0.0.1:3001/api/v1/ws");
  });

  it("counts as connected once a capable server says so, not before", async () => {
    client.connect();
    await settle();
    world.socket.accept("quarterdeck.v1");
    expect(client.state.connected).toBe(false);
    world.socket.receive({ action: "auth_ok", features: [] });
    expect(client.state.connected).toBe(true);
  });

  it("is plain, with its ticket in the URL, once a capable one came to nothing", async () => {
    world.ticket = async () => "a&b";
    client.connect().catch(() => {});
    await settle();
    world.socket.drop();
    await world.pass(1_000);
    expect(world.socket.url).toBe("wss://deck.example/api/v1/ws?ticket=a%26b");
    expect(world.socket.protocols).toEqual([]);
    world.socket.accept();
    expect(client.state).toMatchObject({ connected: true, readOnly: false });
  });

  it("is spoken to plainly where the subprotocol is not picked", async () => {
    client.watch({ channels: ["tasks"], onEvent() {}, onReload() {} });
    client.connect();
    await settle();
    world.socket.accept("");
    expect(client.state.connected).toBe(true);
    expect(world.socket.sent).toEqual([{ action: "subscribe", channels: ["tasks"], filters: {} }]);
  });

  it("takes a new ticket for every connection", async () => {
    await connect();
    world.socket.drop();
    await world.pass(1_000);
    expect(world.socket.protocols[1]).toBe("quarterdeck.ticket.ticket-2");
  });

  it("is given up when nothing answers", async () => {
    await connect();
    world.socket.drop();
    await world.pass(2_000);
    expect(world.sockets).toHaveLength(2);
    await world.pass(15_000 + 3_000);
    expect(world.sockets).toHaveLength(3);
  });
});

describe("connect", () => {
  it("fetches one ticket and opens one socket however often it is called", async () => {
    const first = client.connect();
    expect(client.connect()).toBe(first);
    await settle();
    expect(client.connect()).toBe(first);
    world.socket.welcome();
    await first;
    await client.connect();
    expect([world.tickets, world.sockets.length]).toEqual([1, 1]);
  });

  it("opens nothing when disconnected during the ticket request", async () => {
    const [held, connecting] = [heldTickets(), client.connect()];
    client.disconnect();
    held[0]?.resolve("late");
    await connecting;
    expect(world.sockets).toEqual([]);
    expect(world.waiting).toEqual([]);
  });

  it("is not disturbed by an older attempt that ends late", async () => {
    const held = heldTickets();
    client.connect();
    client.disconnect();
    const second = client.connect();
    held[0]?.resolve("old");
    await settle();
    expect(client.connect()).toBe(second);
    held[1]?.resolve("new");
    await settle();
    expect(world.sockets).toHaveLength(1);
    expect(world.socket.protocols[1]).toBe("quarterdeck.ticket.new");
  });

  it("is not disturbed by an older attempt that fails late", async () => {
    const held = heldTickets();
    const first = client.connect();
    client.disconnect();
    const second = client.connect();
    held[0]?.reject(new ApiError("", 401));
    await expect(first).rejects.toThrow();
    expect(client.state.stopped).toBeNull();
    expect(client.connect()).toBe(second);
  });

  it("rejects without a session, and stays away", async () => {
    world.ticket = () => Promise.reject(new ApiError("Not signed in", 401));
    await expect(client.connect()).rejects.toThrow("Not signed in");
    expect(client.state.stopped).toBe("signed-out");
    await world.pass(3_600_000);
    expect(world.tickets).toBe(1);
  });

  it("rejects when there is no ticket for now, and comes back", async () => {
    world.ticket = () => Promise.reject(new ApiError("Too many", 429));
    await expect(client.connect()).rejects.toThrow("Too many");
    await world.pass(1_000);
    expect(world.tickets).toBe(2);
  });

  it("ignores what a former socket still says", async () => {
    await connect();
    const former = world.socket;
    const handlers = { ...former };
    client.disconnect();
    await connect();
    handlers.onclose?.({ code: 4003, reason: "" });
    handlers.onmessage?.({ data: JSON.stringify({ action: "subscribed", channels: ["tasks"] }) });
    expect(client.state).toMatchObject({ connected: true, stopped: null, subscribedChannels: [] });
  });

  it("comes back although the browser refuses to open a socket", async () => {
    const { openSocket } = world;
    world.openSocket = () => {
      throw new Error("insecure");
    };
    await expect(client.connect()).rejects.toThrow("insecure");
    world.openSocket = openSocket;
    await world.pass(1_000);
    expect(world.sockets).toHaveLength(1);
  });
});

describe("disconnect", () => {
  it("leaves no timer, no socket and no way back", async () => {
    await connect();
    client.disconnect();
    expect(world.waiting).toEqual([]);
    expect(world.socket.readyState).toBe(3);
    world.wake("network");
    await world.pass(3_600_000);
    expect(world.tickets).toBe(1);
  });

  it("settles an attempt that was waiting for its socket", async () => {
    const connecting = client.connect();
    await settle();
    client.disconnect();
    await connecting;
    expect(client.state.connected).toBe(false);
  });
});

describe("reconnecting", () => {
  it("waits twice as long each time, at most half a minute, a fifth more or less", () => {
    const at = (chance: number) => [0, 1, 4, 5, 19].map((n) => Math.round(reconnectDelay(n, () => chance)));
    expect(at(0)).toEqual([800, 1_600, 12_800, 24_000, 24_000]);
    expect(at(0.999_999)).toEqual([1_200, 2_400, 19_200, 30_000, 30_000]);
  });

  it("gives up after twenty attempts and begins anew when asked to", async () => {
    await connect();
    world.ticket = () => Promise.reject(new ApiError("", 0));
    world.socket.drop();
    await world.pass(3_600_000);
    expect(world.tickets).toBe(1 + 20);
    expect(client.state.reconnectExhausted).toBe(true);
    world.ticket = async () => "t";
    client.retry();
    await settle();
    world.socket.welcome();
    expect(client.state).toMatchObject({ connected: true, reconnectExhausted: false });
    world.socket.drop();
    expect(world.waiting).toEqual([1_000]);
  });

  for (const code of [1005, 1006, 1008, 1011, 1012, 1013, 4011]) {
    it(`happens after ${code}`, async () => {
      await connect();
      world.socket.drop(code);
      await world.pass(1_200);
      expect(world.sockets).toHaveLength(2);
    });
  }

  for (const [code, reason, stopped] of [
    [1000, "", "closed"],
    [1001, "", "closed"],
    [1009, "", "fault"],
    [4003, "Invalid role", "forbidden"],
    [4003, "Session revoked (session_revoked)", "signed-out"],
  ] as const) {
    it(`does not happen after ${code} ${reason}`, async () => {
      await connect();
      world.socket.drop(code, reason);
      world.wake("network");
      await world.pass(3_600_000);
      expect(world.sockets).toHaveLength(1);
      expect(client.state.stopped).toBe(stopped);
    });
  }

  it("happens once after 4001, with another ticket", async () => {
    client.connect().catch(() => {});
    for (const ticket of ["ticket-1", "ticket-2"]) {
      await settle();
      expect(world.socket.protocols[1]).toBe(`quarterdeck.ticket.${ticket}`);
      world.socket.accept("quarterdeck.v1");
      world.socket.drop(4001, "Invalid or expired ticket");
      await world.pass(2_400);
    }
    await world.pass(3_600_000);
    expect(world.sockets).toHaveLength(2);
    expect(client.state.stopped).toBe("signed-out");
  });

  it("counts only 4001 in a row", async () => {
    await connect();
    for (let round = 0; round < 3; round++) {
      world.socket.drop(4001);
      await world.pass(1_200);
      world.socket.welcome();
    }
    expect(client.state.connected).toBe(true);
  });

  it("waits longer each time a server refuses after the upgrade", async () => {
    await connect();
    world.socket.drop(1013);
    await world.pass(1_000);
    world.socket.accept("quarterdeck.v1");
    world.socket.drop(1013);
    expect(world.waiting).toEqual([2_000]);
  });

  it("resubscribes exactly once in each of fifty connections", async () => {
    client.watch({ channels: ["tasks", "agents"], onEvent() {}, onReload() {} });
    await connect();
    for (let round = 0; round < 50; round++) {
      expect(world.socket.sent).toHaveLength(1);
      expect(world.socket.sent[0]).toMatchObject({ action: "subscribe", channels: ["tasks", "agents"] });
      world.socket.drop();
      await world.pass(1_200);
      world.socket.welcome();
    }
    expect(world.sockets).toHaveLength(51);
  });
});
