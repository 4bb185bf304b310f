// SPDX-License-Identifier: Apache-2.0
// Tests that repeat themselves with several seeds: a failure names the one it came with, and
// BLOCKWRIGHT_SEED=N runs that one alone.

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
