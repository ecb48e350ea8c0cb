import { type Filters, filterKey, matches, UNFILTERED } from "./filters";
import { type RealtimeEvent, sanitise } from "./wire";

/** Somebody who follows channels. */
export interface View {
  channels: readonly string[];
  /** Which events of these channels; all without it. */
  filters?: Filters;
  onEvent(event: RealtimeEvent): void;
  /**
   * Events begin now, or some were missed: what `channel` is about has to be loaded over REST, from here on events
   * continue it. `reason` is
   *
   * - `first` at the beginning,
   * - `refused` when this account may not follow the channel, or not any more: no events come,
   * - `read_only` when no socket gets through: no events come until `no_history` says that they do again,
   * - `no_history` when nobody can say what was missed since the last connection,
   * - `oversized` when a frame was too large to be read,
   * - and otherwise the server's word: `gap`, `epoch_changed`, `ahead`, `disabled`, `too_large`.
   */
  onReload(channel: string, reason: string): void;
}

interface Entry {
  view: View;
  filters: Filters;
  key: string;
  channels: Set<string>;
  /** Channels whose beginning this view has not been told of. */
  fresh: Set<string>;
}

/** Who follows what. A channel is wanted as long as one view does. */
export class Subscriptions {
  private readonly entries = new Set<Entry>();
  private readonly listeners = new Set<(event: RealtimeEvent) => void>();

  constructor(private readonly log: (message: string) => void) {}

  /**
   * Returns what removes the view again.
   *
   * @throws RangeError for filters the server would refuse.
   */
  add(view: View): () => void {
    const filters = { ...view.filters };
    const entry: Entry = {
      view,
      filters,
      key: filterKey(filters),
      channels: new Set(view.channels),
      fresh: new Set(view.channels),
    };
    this.entries.add(entry);
    return () => this.entries.delete(entry);
  }

  /** Calls `listener` with every event, whoever wanted it. Returns what ends that. */
  listen(listener: (event: RealtimeEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * Each wanted channel with the key of the filters to ask the server for. It keeps one set of filters per channel:
   * where views differ it has to send everything, and {@link deliver} sorts.
   */
  wanted(): Map<string, string> {
    const wanted = new Map<string, string>();
    for (const { channels, key } of this.entries) {
      for (const channel of channels) {
        wanted.set(channel, (wanted.get(channel) ?? key) === key ? key : UNFILTERED);
      }
    }
    return wanted;
  }

  wants(channel: string): boolean {
    return this.on(channel).length > 0;
  }

  deliver(event: RealtimeEvent): void {
    for (const entry of this.on(event.channel)) {
      if (matches(entry.filters, event.payload)) this.run(entry, (view) => view.onEvent(event));
    }
    for (const listener of [...this.listeners]) this.isolate(() => listener(event));
  }

  /** The server has answered for a channel: new views begin, and the others missed something if there is a reason. */
  begin(channel: string, missed: string | null): void {
    for (const entry of this.on(channel)) {
      const reason = entry.fresh.delete(channel) ? "first" : missed;
      if (reason !== null) this.run(entry, (view) => view.onReload(channel, reason));
    }
  }

  /** No events come on a channel. */
  withhold(channel: string, reason: "refused" | "read_only"): void {
    for (const entry of this.on(channel)) {
      entry.fresh.delete(channel);
      this.run(entry, (view) => view.onReload(channel, reason));
    }
  }

  /** Events were missed on a channel. Views that have yet to begin load later than this anyway. */
  reload(channel: string, reason: string): void {
    for (const entry of this.on(channel)) {
      if (!entry.fresh.has(channel)) this.run(entry, (view) => view.onReload(channel, reason));
    }
  }

  clear(): void {
    this.entries.clear();
    this.listeners.clear();
  }

  private on(channel: string): Entry[] {
    return [...this.entries].filter(({ channels }) => channels.has(channel));
  }

  private run(entry: Entry, step: (view: View) => void): void {
    // A view before it in the list may have removed it.
    if (this.entries.has(entry)) this.isolate(() => step(entry.view));
  }

  private isolate(step: () => void): void {
    try {
      step();
    } catch (failure) {
      this.log(`A handler of real-time events failed: ${sanitise(String(failure))}`);
    }
  }
}
