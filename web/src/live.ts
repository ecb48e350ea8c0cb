import { RealtimeClient, type RealtimeEvent, type RealtimeState } from "./realtime/client";
import { shorten, words } from "./text";

/** What a person may follow; `user:` and their id comes on top. */
const CHANNELS = [
  "tasks",
  "agents",
  "budget",
  "messages",
  "system",
  "approvals",
  "meetings",
  "artifacts",
  "projects",
  "company",
  "departments",
  "clients",
  "requests",
  "simulations",
  "reviews",
  "events",
  "interrupts",
];
const SHOWN_EVENTS = 20;
const PAYLOAD_CHARS = 120;

/** Reasons for which a view has to load although nothing was lost. */
const NO_LOSS = ["first", "refused", "read_only"];

const LOST: Record<string, string> = {
  epoch_changed: "the server has begun a new history",
  gap: "more happened than the server keeps",
  too_large: "more happened than the server repeats at once",
};

const STOPPED = {
  "signed-out": "Signed out",
  forbidden: "Not for this account",
  closed: "Closed by the server",
  fault: "Stopped after a fault",
};

/** The part of the page that shows what happens while it happens. */
export class LivePanel {
  private client: RealtimeClient | null = null;
  private readonly events: HTMLElement;
  private readonly missed: HTMLElement;

  /** `onSignedOut` is called when the server says that the session is over. */
  constructor(
    private readonly panel: HTMLElement,
    private readonly onSignedOut: () => void,
  ) {
    this.events = this.part("live-events");
    this.missed = this.part("live-missed");
    this.part("live-retry").addEventListener("click", () => this.client?.retry());
  }

  /** Follows what this account may see, from now on. */
  start(userId: string): void {
    this.stop();
    const client = new RealtimeClient({ session: userId });
    this.client = client;
    client.onState((state) => this.showState(state));
    client.watch({
      channels: [...CHANNELS, `user:${userId}`],
      onEvent: (event) => this.add(event),
      onReload: (_channel, reason) => this.tellLoss(reason),
    });
    this.showState(client.state);
    this.panel.hidden = false;
    client.connect().catch(() => {}); // The state says how it goes on.
  }

  /** Forgets everything and disappears. */
  stop(): void {
    const { client } = this;
    this.client = null;
    client?.disconnect();
    this.panel.hidden = true;
    this.empty();
  }

  private empty(): void {
    this.events.replaceChildren();
    this.missed.textContent = "";
    this.part("live-empty").hidden = false;
  }

  private part(id: string): HTMLElement {
    return this.panel.querySelector(`#${id}`) as HTMLElement;
  }

  private showState(state: RealtimeState): void {
    if (!this.client) return;
    const { connected, readOnly, reconnectExhausted, stopped } = state;
    const down = stopped !== null || reconnectExhausted;
    const up = readOnly ? "degraded" : "ok";
    this.part("live-state").dataset.state = down ? "down" : connected ? up : "waiting";
    this.part("live-state-text").textContent = describe(state);
    this.part("live-read-only").textContent = readOnly
      ? "Something between you and the server lets no live connection through. Only a read-only stream of sessions " +
        "is shown; reload the page to see everything else."
      : "";
    this.part("live-retry").hidden = !readOnly && (!down || stopped === "signed-out");
    if (stopped !== "signed-out") return;
    // What an account has seen is not for whoever comes after it.
    this.empty();
    this.part("live-empty").hidden = true;
    this.onSignedOut();
  }

  private add(event: RealtimeEvent): void {
    const time = document.createElement("time");
    time.dateTime = event.timestamp;
    time.textContent = clock(new Date(event.timestamp));
    const channel = document.createElement("span");
    channel.textContent = event.channel;
    const type = document.createElement("strong");
    type.textContent = event.event_type;
    const payload = document.createElement("code");
    payload.textContent = shorten(JSON.stringify(event.payload), PAYLOAD_CHARS);
    const item = document.createElement("li");
    item.append(time, channel, type, payload);
    this.events.prepend(item);
    while (this.events.childElementCount > SHOWN_EVENTS) this.events.lastElementChild?.remove();
    this.part("live-empty").hidden = true;
  }

  /** This panel keeps nothing that could be loaded again: what it can do is say that something is missing. */
  private tellLoss(reason: string): void {
    if (NO_LOSS.includes(reason)) return;
    const why = LOST[reason] ?? words(reason);
    this.missed.textContent = `Some events were missed at ${clock(new Date())}: ${why}. Reload what you look at.`;
  }
}

function describe({ connected, readOnly, reconnectExhausted, stopped }: RealtimeState): string {
  if (stopped) return STOPPED[stopped];
  if (reconnectExhausted) return "Not connected";
  if (!connected) return "Connecting…";
  return readOnly ? "Read only" : "Connected";
}

function clock(time: Date): string {
  return Number.isNaN(time.getTime()) ? "" : time.toLocaleTimeString();
}
