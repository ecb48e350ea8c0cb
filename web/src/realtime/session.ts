import { filtersOf } from "./filters";
import type { Position, Positions } from "./positions";
import { type Command, fits } from "./wire";

/** What one connection was asked for, and which answers it still owes. Ends with the connection. */
export class Session {
  /** The last command about each channel, with the key of the filters it asked for. */
  private readonly asked = new Map<string, { key: string; command: Command }>();
  private readonly begun = new Set<string>();
  private readonly owed: Command[] = [];
  private lastId = 0;

  /** `features` are null on a plain connection. `send` says whether it could. */
  constructor(
    private readonly features: readonly string[] | null,
    private readonly send: (text: string) => boolean,
  ) {}

  /** Asks for what is wanted and was not asked for, and gives back what is not wanted any more. */
  sync(wanted: ReadonlyMap<string, string>, positions: Positions): void {
    const gone = [...this.asked.keys()].filter((channel) => !wanted.has(channel));
    for (const command of pack(gone, (channels) => ({ action: "unsubscribe", channels }))) {
      if (!this.transmit(command)) continue;
      for (const channel of command.channels ?? []) {
        this.asked.delete(channel);
        this.begun.delete(channel);
      }
    }
    const groups = new Map<string, string[]>();
    for (const [channel, key] of wanted) {
      if (this.asked.get(channel)?.key === key) continue;
      groups.set(key, [...(groups.get(key) ?? []), channel]);
    }
    for (const [key, names] of groups) {
      for (const command of pack(names, (channels) => this.subscription(channels, key, positions))) {
        if (!this.transmit(command)) continue;
        for (const channel of command.channels ?? []) this.asked.set(channel, { key, command });
      }
    }
  }

  ping(): void {
    this.transmit({ action: "ping" });
  }

  /**
   * The command a reply belongs to. Replies of a plain connection have no names but come in order: the server has
   * undone what it passes over, so {@link sync} will ask again.
   */
  answered(action: Command["action"] | null, id: string | null): Command | null {
    if (this.features) {
      const index = this.owed.findIndex((command) => command.id === id);
      return index < 0 ? null : (this.owed.splice(index, 1)[0] ?? null);
    }
    const index = action === null ? 0 : this.owed.findIndex((command) => command.action === action);
    if (index < 0) return null;
    const [command = null, ...passed] = this.owed.splice(0, index + 1).reverse();
    for (const each of passed) this.undone(each);
    return command;
  }

  /** Whether the command is the last word about this channel. */
  decides(command: Command, channel: string): boolean {
    return this.asked.get(channel)?.command === command;
  }

  /** Events of a channel begin; says whether they did before. */
  begin(channel: string): boolean {
    const before = this.begun.has(channel);
    this.begun.add(channel);
    return before;
  }

  hasBegun(channel: string): boolean {
    return this.begun.has(channel);
  }

  /** Whether no answer about this channel is awaited. */
  settled(channel: string): boolean {
    const last = this.asked.get(channel);
    return last !== undefined && this.begun.has(channel) && !this.owed.includes(last.command);
  }

  /** Channels with events, and forgets those that are not among `active`. */
  retain(active: ReadonlySet<string>): string[] {
    const lost = [...this.begun].filter((channel) => !active.has(channel));
    for (const channel of lost) this.begun.delete(channel);
    return lost;
  }

  get channels(): string[] {
    return [...this.begun];
  }

  private subscription(channels: string[], key: string, positions: Positions): Command {
    const command: Command = { action: "subscribe", channels, filters: filtersOf(key) };
    if (this.features?.includes("batch")) command.batch = true;
    if (this.features?.includes("recover")) {
      const known = channels.flatMap((channel): [string, Position][] => {
        const position = positions.get(channel);
        return position ? [[channel, position]] : [];
      });
      if (known.length > 0) command.recover = Object.fromEntries(known);
    }
    return command;
  }

  private transmit(command: Command): boolean {
    // A capable server names what it answers; its pongs need no name.
    const named = this.features !== null && command.action !== "ping";
    if (named) command.id = String(++this.lastId);
    if (!this.send(JSON.stringify(command))) return false;
    if (named || this.features === null) this.owed.push(command);
    return true;
  }

  private undone(command: Command): void {
    for (const channel of command.channels ?? []) {
      if (command.action === "subscribe" && this.decides(command, channel)) this.asked.delete(channel);
      if (command.action === "unsubscribe" && !this.asked.has(channel))
        this.asked.set(channel, { key: "", command });
    }
  }
}

/** As few commands as possible that the server will read. */
function pack(channels: string[], build: (channels: string[]) => Command): Command[] {
  const commands: Command[] = [];
  let room: string[] = [];
  for (const channel of channels) {
    if (room.length > 0 && !fits(build([...room, channel]))) {
      commands.push(build(room));
      room = [];
    }
    room.push(channel);
  }
  if (room.length > 0) commands.push(build(room));
  return commands;
}
