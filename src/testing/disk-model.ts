// SPDX-License-Identifier: Apache-2.0
// What a disk ought to hold: a plain byte array, kept beside the real thing as its oracle.

export class DiskModel {
  readonly bytes: Uint8Array;

  /** A disk of `length` bytes, all zero, or a copy of what is given. */
  constructor(content: number | Uint8Array) {
    this.bytes = typeof content === 'number' ? new Uint8Array(content) : content.slice();
  }

  get length(): number {
    return this.bytes.length;
  }

  write(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
  }

  writeZeroes(offset: number, length: number): void {
    this.bytes.fill(0, offset, offset + length);
  }

  /** The content as it is now, independent of later writes. */
  snapshot(): DiskModel {
    return new DiskModel(this.bytes);
  }

  /** Disk offset of the first byte of `actual`, read at `offset`, that is not as it ought to be. */
  firstDifference(actual: Uint8Array, offset = 0): number | null {
    const expected = this.bytes.subarray(offset, offset + actual.length);
    if (Buffer.compare(expected, actual) === 0) return null;
    for (let index = 0; index < actual.length; index += 1) {
      if (actual[index] !== expected[index]) return offset + index;
    }
    return null;
  }
}
