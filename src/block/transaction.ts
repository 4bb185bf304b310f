// SPDX-License-Identifier: Apache-2.0
// Changes that happen all together or not at all.
//
// Only the building of steps (prepare) and `clean`, after the fact, may await; commit and abort are
// synchronous, so no other task sees a half-changed graph. A step that already changed something
// while it was prepared undoes it in abort. Steps are undone in reverse order.

export interface Step {
  /** Cannot fail. */
  commit?(): void;
  /** Undoes what prepare did; cannot fail. */
  abort?(): void;
  /** After commit or abort: waits for what only has to happen eventually (closing files). */
  clean?(): Promise<void>;
}

export class Transaction {
  readonly #steps: Step[] = [];

  add(step: Step): void {
    this.#steps.push(step);
  }

  commit(): void {
    for (const step of this.#steps) step.commit?.();
  }

  abort(): void {
    for (let index = this.#steps.length - 1; index >= 0; index -= 1) this.#steps[index]?.abort?.();
  }

  /** Runs every clean, also when one fails; throws the first failure. */
  async clean(): Promise<void> {
    let failure: { error: unknown } | null = null;
    for (const step of this.#steps) {
      try {
        await step.clean?.();
      } catch (error) {
        failure ??= { error };
      }
    }
    if (failure !== null) throw failure.error;
  }
}

/**
 * Builds and commits a transaction. When `build` throws, everything prepared is undone and its
 * error is thrown; a failing clean after that does not hide it.
 */
export async function transaction<T>(build: (tx: Transaction) => Promise<T> | T): Promise<T> {
  const tx = new Transaction();
  let result: T;
  try {
    result = await build(tx);
  } catch (error) {
    tx.abort();
    await tx.clean().catch(() => undefined);
    throw error;
  }
  tx.commit();
  await tx.clean();
  return result;
}
