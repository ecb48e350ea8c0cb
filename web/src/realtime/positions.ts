/** A place in the history of a channel. Numbers of different epochs cannot be compared. */
export interface Position {
  epoch: string;
  seq: number;
}

/** How far this client has come in each channel; outlives connections, so that they can be continued. */
export class Positions {
  private readonly own = new Map<string, Position>();

  get(channel: string): Position | undefined {
    return this.own.get(channel);
  }

  /** Starts anew from `position`, whatever was known before. */
  set(channel: string, position: Position): void {
    this.own.set(channel, position);
  }

  /**
   * Moves forward to `position`. `seen` says that this client is there or further already, `epoch` that history
   * was broken in between.
   */
  advance(channel: string, position: Position): "new" | "seen" | "epoch" {
    const own = this.own.get(channel);
    if (own?.epoch === position.epoch && position.seq <= own.seq) return "seen";
    this.own.set(channel, position);
    return own === undefined || own.epoch === position.epoch ? "new" : "epoch";
  }

  forget(channel: string): void {
    this.own.delete(channel);
  }

  clear(): void {
    this.own.clear();
  }
}
