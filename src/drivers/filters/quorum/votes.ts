// SPDX-License-Identifier: Apache-2.0
// Votes: which of several answers has the most voices, and who gave another one.
//
// Answers are compared whole, byte by byte, so nothing is ever believed because of a hash. Where
// two answers have as many voices, the one that came up last wins, as in the reference.

export interface Version<T> {
  readonly value: T;
  /** Children that gave it, by their places, ascending. */
  readonly voters: readonly number[];
}

export interface Tally<T> {
  readonly winner: Version<T>;
  /** Latest first. */
  readonly losers: readonly Version<T>[];
}

/** Null when nobody voted; a null answer is no vote. */
export function tally<T>(
  answers: readonly (T | null)[],
  same: (left: T, right: T) => boolean,
): Tally<T> | null {
  const versions: { value: T; voters: number[] }[] = [];
  for (const [voter, value] of answers.entries()) {
    if (value === null) continue;
    const known = versions.find((version) => same(version.value, value));
    if (known === undefined) versions.unshift({ value, voters: [voter] });
    else known.voters.push(voter);
  }
  let winner: Version<T> | undefined;
  for (const version of versions) {
    if (winner === undefined || version.voters.length > winner.voters.length) winner = version;
  }
  if (winner === undefined) return null;
  return { winner, losers: versions.filter((version) => version !== winner) };
}

export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}
