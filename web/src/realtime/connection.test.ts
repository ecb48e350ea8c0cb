import { beforeEach, describe, expect, it } from "vitest";
import { ApiError } from "../api";
import { reconnectDelay } from "./backoff";
import { RealtimeClient } from "./client";
import { FakeWorld, settle } from "./testing";

let world: FakeWorld;
let client: RealtimeClient;

beforeEach(() => {
  world = new FakeWorld();
  client = new RealtimeClient({ env: world, session: "s-1" });
});

/** A client with a capable connection. */
async function connected() {
  const connecting = client.connect();
  await settle();
  world.socket.welcome();
  await connecting;
}

/** Tickets that come when the test says so. */
function heldTickets() {
  const held: { resolve(ticket: string): void; reject(failure: unknown): void }[] = [];
  world.ticket = () => new Promise((resolve, reject) => held.push({ resolve, reject }));
  return held;
}

describe("the handshake", () => {
  it("carries the ticket beside the subprotocol and not in the URL", async () => {
    await connected();
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
    await connected();
    world.socket.drop();
    await world.pass(1_000);
    expect(world.socket.protocols[1]).toBe("quarterdeck.ticket.ticket-2");
  });

  it("is given up when nothing answers", async () => {
    await connected();
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
    await connected();
    const former = world.socket;
    const handlers = { ...former };
    client.disconnect();
    await connected();
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
    await connected();
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
    await connected();
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
      await connected();
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
      await connected();
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
    await connected();
    for (let round = 0; round < 3; round++) {
      world.socket.drop(4001);
      await world.pass(1_200);
      world.socket.welcome();
    }
    expect(client.state.connected).toBe(true);
  });

  it("waits longer each time a server refuses after the upgrade", async () => {
    await connected();
    world.socket.drop(1013);
    await world.pass(1_000);
    world.socket.accept("quarterdeck.v1");
    world.socket.drop(1013);
    expect(world.waiting).toEqual([2_000]);
  });

  it("resubscribes exactly once in each of fifty connections", async () => {
    client.watch({ channels: ["tasks", "agents"], onEvent() {}, onReload() {} });
    await connected();
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

describe("the heartbeat", () => {
  it("asks every twenty seconds, a twentieth more or less", async () => {
    for (const [chance, ms] of [
      [0, 19_000],
      [0.5, 20_000],
    ] as const) {
      world.chance = chance;
      await connected();
      expect(world.waiting).toEqual([ms]);
      client.disconnect();
    }
  });

  it("keeps a connection that answers", async () => {
    await connected();
    world.socket.onSent = () => world.socket.receive({ action: "pong" });
    await world.pass(600_000);
    expect(world.sockets).toHaveLength(1);
    expect(world.socket.commands("ping")).toHaveLength(30);
  });

  it("replaces a connection that does not answer within ten seconds", async () => {
    await connected();
    await world.pass(20_000 + 9_999);
    expect(client.state.connected).toBe(true);
    await world.pass(1);
    expect(client.state.connected).toBe(false);
    expect(world.socket.readyState).toBe(3);
    await world.pass(1_200);
    expect(world.sockets).toHaveLength(2);
  });

  it("notices that the machine slept and connects again at once", async () => {
    await connected();
    await world.sleep(3_600_000);
    expect(world.sockets).toHaveLength(2);
  });

  it("notices a sleep between question and answer", async () => {
    await connected();
    await world.pass(25_000);
    await world.sleep(3_600_000);
    expect(world.sockets).toHaveLength(2);
  });

  it("does not take a slow timer of a page in the background for sleep", async () => {
    await connected();
    await world.sleep(80_000);
    expect(world.sockets).toHaveLength(1);
    expect(world.socket.commands("ping")).toHaveLength(1);
  });
});

describe("waking up", () => {
  it("replaces the connection at once when the network is back", async () => {
    await connected();
    world.wake("network");
    await settle();
    expect(world.sockets).toHaveLength(2);
  });

  it("asks whether the connection is alive when somebody looks", async () => {
    await connected();
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
    await connected();
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
    client = new RealtimeClient({ env: world });
    await blocked();
    await world.pass(10_000);
    expect(world.streams).toEqual([]);
    expect(world.sockets.length).toBeGreaterThan(2);
  });
});
