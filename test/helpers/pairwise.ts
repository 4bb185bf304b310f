// SPDX-License-Identifier: Apache-2.0
// Samples of a product of choices in which every two values of different columns that may stand
// together do stand together in one row at least.
import { SeededRandom } from '../../src/base/index.js';

export type Columns = Readonly<Record<string, readonly (string | number | boolean)[]>>;
export type Row<C extends Columns> = { readonly [Name in keyof C]: C[Name][number] };

/** Rows tried for each that is kept. */
const TRIES = 40;

/** `allowed` says which whole rows there may be; pairs that are in none are left out. */
export function pairwiseRows<C extends Columns>(
  columns: C,
  options: { readonly allowed: (row: Row<C>) => boolean; readonly seed: number },
): Row<C>[] {
  const random = new SeededRandom(options.seed);
  const names = Object.keys(columns);
  const open = new Set<string>();
  const valuesOf = (name: string): readonly unknown[] => columns[name] ?? [];
  names.forEach((one, index) => {
    for (const other of names.slice(index + 1)) {
      for (const left of valuesOf(one)) {
        for (const right of valuesOf(other)) open.add(pairKey([one, left], [other, right]));
      }
    }
  });
  const pick = (): Record<string, unknown> =>
    Object.fromEntries(
      names.map((name) => [name, valuesOf(name)[random.below(valuesOf(name).length)]]),
    );
  const rows: Row<C>[] = [];
  for (;;) {
    const wanted = [...open][0];
    if (wanted === undefined) return rows;
    const fixed = Object.fromEntries(JSON.parse(wanted) as [string, unknown][]);
    const tried = Array.from({ length: TRIES }, () => ({ ...pick(), ...fixed }) as Row<C>)
      .filter((row) => options.allowed(row))
      .map((row) => ({ row, news: pairsOf(row).filter((pair) => open.has(pair)) }))
      .toSorted((one, other) => other.news.length - one.news.length);
    const [best] = tried;
    // A pair that no row may have, as far as was tried.
    open.delete(wanted);
    if (best === undefined) continue;
    for (const pair of best.news) open.delete(pair);
    rows.push(best.row);
  }
}

function pairKey(one: readonly [string, unknown], other: readonly [string, unknown]): string {
  return JSON.stringify([one, other]);
}

function pairsOf(row: Readonly<Record<string, unknown>>): string[] {
  const entries = Object.entries(row);
  return entries.flatMap((one, index) =>
    entries.slice(index + 1).map((other) => pairKey(one, other)),
  );
}
