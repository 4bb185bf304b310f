// SPDX-License-Identifier: Apache-2.0
// Tests that repeat themselves with several seeds: a failure names the one it came with, and
// BLOCKWRIGHT_SEED=N runs that one alone. Long tables of cases are played whole in campaigns.

export async function forEachSeed(
  seeds: number | readonly number[],
  act: (seed: number) => Promise<void>,
): Promise<void> {
  const all = typeof seeds === 'number' ? Array.from({ length: seeds }, (_, at) => at + 1) : seeds;
  const only = process.env['BLOCKWRIGHT_SEED'];
  for (const seed of only === undefined ? all : [Number(only)]) {
    try {
      await act(seed);
    } catch (error) {
      if (error instanceof Error) {
        error.message += `\n(replay with BLOCKWRIGHT_SEED=${seed})`;
      }
      throw error;
    }
  }
}

/** How often something random is played: `many` times when BLOCKWRIGHT_CAMPAIGN is set. */
export function runs(few: number, many: number): number {
  return process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? few : many;
}

/**
 * Each `step`-th of the cases, all of them when BLOCKWRIGHT_CAMPAIGN is set. With one more `turn`
 * it begins with the next case, so that several tables that take turns meet all columns.
 */
export function someOf<T>(cases: readonly T[], step: number, turn = 0): readonly T[] {
  const whole = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
  return whole ? cases : cases.filter((_, index) => (index + turn) % step === 0);
}
