import type { Environment, Timer } from "./environment";

const EVERY_MS = 20_000;
const JITTER = 0.05;
const ANSWER_MS = 10_000;
/** So late no browser calls a timer of a page in the background; the machine has slept. */
const SLEPT_MS = 90_000;

/** Asks one connection every now and then whether it is alive. */
export class Heartbeat {
  private next: Timer | null = null;
  private answer: Timer | null = null;
  private due = 0;

  /** `dead` is called once no answer came in time, or once the clock says that this machine was asleep. */
  constructor(
    private readonly env: Environment,
    private readonly ping: () => void,
    private readonly dead: (slept: boolean) => void,
  ) {}

  start(): void {
    const delay = EVERY_MS * (1 - JITTER + 2 * JITTER * this.env.random());
    this.due = this.env.now() + delay;
    this.next = this.env.setTimer(() => {
      if (this.overslept()) return this.dead(true);
      this.probe();
      this.start();
    }, delay);
  }

  /** Asks now. */
  probe(): void {
    this.answer ??= this.env.setTimer(() => this.dead(this.overslept()), ANSWER_MS);
    this.ping();
  }

  /** The answer has come. */
  pong(): void {
    if (this.answer !== null) this.env.clearTimer(this.answer);
    this.answer = null;
  }

  /** Whether the next question should have been asked long ago. */
  overslept(): boolean {
    return this.env.now() - this.due > SLEPT_MS;
  }

  stop(): void {
    this.pong();
    if (this.next !== null) this.env.clearTimer(this.next);
    this.next = null;
  }
}
