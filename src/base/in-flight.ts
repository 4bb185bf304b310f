// SPDX-License-Identifier: Apache-2.0
// Pieces of work under way at the same time.
//
// Each is listened to once, when it is added: waiting for the next to end costs the same whether
// one of them hangs among millions of quick ones. (A race over all of them would leave a reaction
// with the one that hangs each time.)

export class InFlight {
  #size = 0;
  #failed = false;
  #error: unknown = null;
  #next: Promise<void> | null = null;
  #tell: (() => void) | null = null;

  /** How many have not ended. */
  get size(): number {
    return this.#size;
  }

  add(work: Promise<unknown>): void {
    this.#size += 1;
    work.then(this.#over, this.#fail);
  }

  /** Resolves when one more has ended, at once when there is none; throws what one threw first. */
  async oneEnds(): Promise<void> {
    if (this.#size > 0 && !this.#failed) await this.#nextEnd();
    this.#check();
  }

  /** Resolves when none is left; throws then what one threw first. */
  async allEnd(): Promise<void> {
    while (this.#size > 0) await this.#nextEnd();
    this.#check();
  }

  #nextEnd(): Promise<void> {
    this.#next ??= new Promise((resolve) => {
      this.#tell = resolve;
    });
    return this.#next;
  }

  #check(): void {
    if (this.#failed) throw this.#error;
  }

  readonly #over = (): void => {
    this.#size -= 1;
    const tell = this.#tell;
    this.#next = null;
    this.#tell = null;
    tell?.();
  };

  readonly #fail = (error: unknown): void => {
    if (!this.#failed) {
      this.#failed = true;
      this.#error = error;
    }
    this.#over();
  };
}
