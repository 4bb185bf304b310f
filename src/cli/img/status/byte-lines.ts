// SPDX-License-Identifier: Apache-2.0
// Long listings as bytes: numbers and fixed texts go straight into what is written, which for a
// million lines takes a fraction of the time that strings of them would.

import type { Program } from '../../program.js';

/** Written at once: a call for each line costs more than making it. */
const BLOCK_BYTES = 256 * 1024;
/** Of 2^53. */
const MOST_DIGITS = 16;
const ZERO = 0x30;
const EIGHT_DIGITS = 100_000_000;

/** A fixed text, made once. */
export function lineText(text: string): Uint8Array {
  return Buffer.from(text, 'utf8');
}

export class ByteLines {
  readonly #program: Program;
  #block = new Uint8Array(BLOCK_BYTES);
  #used = 0;

  constructor(program: Program) {
    this.#program = program;
  }

  text(bytes: Uint8Array): void {
    if (this.#used + bytes.length > BLOCK_BYTES) this.flush();
    if (bytes.length > BLOCK_BYTES) {
      this.#write(bytes);
      return;
    }
    this.#block.set(bytes, this.#used);
    this.#used += bytes.length;
  }

  /** A whole number from 0 to 2^53 in decimal digits. */
  number(value: number): void {
    if (this.#used + MOST_DIGITS > BLOCK_BYTES) this.flush();
    if (value < EIGHT_DIGITS) {
      this.#digits(value, digitsOf(value));
      return;
    }
    const high = Math.floor(value / EIGHT_DIGITS);
    const low = value - high * EIGHT_DIGITS;
    this.#digits(high, digitsOf(high));
    this.#digits(low, 8);
  }

  /** Writes what is held back. */
  flush(): void {
    if (this.#used === 0) return;
    const bytes = this.#block.subarray(0, this.#used);
    this.#used = 0;
    if (!this.#write(bytes)) this.#block = new Uint8Array(BLOCK_BYTES);
  }

  /** Whether the bytes are not needed any more. */
  #write(bytes: Uint8Array): boolean {
    if (this.#program.outBytes !== undefined) return this.#program.outBytes(bytes);
    this.#program.out(Buffer.from(bytes).toString());
    return true;
  }

  #digits(value: number, count: number): void {
    const block = this.#block;
    let rest = value;
    for (let at = this.#used + count - 1; at >= this.#used; at -= 1) {
      // Not Math.floor(): this one stays within integers.
      const next = (rest / 10) | 0;
      block[at] = ZERO + rest - next * 10;
      rest = next;
    }
    this.#used += count;
  }
}

/** Of a number below 10^8. */
function digitsOf(value: number): number {
  if (value < 10_000) {
    if (value < 100) return value < 10 ? 1 : 2;
    return value < 1000 ? 3 : 4;
  }
  if (value < 1_000_000) return value < 100_000 ? 5 : 6;
  return value < 10_000_000 ? 7 : 8;
}
