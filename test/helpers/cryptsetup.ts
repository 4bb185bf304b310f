// SPDX-License-Identifier: Apache-2.0
// The real cryptsetup, for what it makes and what it says of ours.
import { runIn } from './command-line.js';
import { peer } from './peers.js';

/** Null where it is not installed. */
export const cryptsetup = peer('cryptsetup');

/** Runs it in the folder, and gives what it printed. Throws what it complained of. */
export function cryptsetupIn(folder: string): (...words: string[]) => string {
  return (...words) => {
    const { out, err, status } = runIn(folder, [cryptsetup ?? '', ...words]);
    if (status !== 0) throw new Error(`cryptsetup ${words.join(' ')}: ${err}`);
    return out;
  };
}
