// SPDX-License-Identifier: Apache-2.0
// The bytes behind a header of either version, decrypted: a read decrypts in place, a write
// encrypts a copy, for the buffer is its owner's. Sectors count from the payload's start.
//
// Long requests go in pieces, and other work gets its turn between them. Bulk copies go past the
// node: they get the ranges of the file and the cipher. The key lies in shared memory, where lanes
// find it, until it is wiped.

import { assert, BlockError, MAX_OFFSET, secretCopy, settle } from '../../../base/index.js';
import type { Eventually } from '../../../base/index.js';
import { yieldToLoop } from '../../../block/copy/index.js';
import { encryptedExtents, writeRequest } from '../../../block/index.js';
import type {
  Child,
  Extent,
  Lease,
  Request,
  TargetReservation,
  TruncateOptions,
} from '../../../block/index.js';
import { makeSectorCipher, SECTOR_BYTES, sharedCipherKey } from '../../../crypto/index.js';
import type { CipherKey, SectorCipher } from '../../../crypto/index.js';
import { encryptedReservation } from './lanes.js';

/** Bytes that are encrypted or decrypted in one turn of the event loop. */
export const PIECE_BYTES = 1024 * 1024;

export interface PayloadPlace {
  readonly file: Child;
  /** Bytes into the file at which the payload begins. */
  readonly start: number;
}

export class Payload {
  readonly #place: PayloadPlace;
  readonly #key: CipherKey;
  readonly #cipher: SectorCipher;

  /** Takes the key: wiped at once, and the copy by wipe(). */
  constructor(place: PayloadPlace, cipher: CipherKey) {
    this.#place = place;
    this.#key = sharedCipherKey(cipher);
    cipher.key.fill(0);
    this.#cipher = makeSectorCipher(this.#key);
  }

  /** Once nothing is read or written any more. */
  wipe(): void {
    this.#cipher.wipe();
    this.#key.key.fill(0);
  }

  /** For another payload, which takes it. */
  copyOfKey(): CipherKey {
    return { ...this.#key, key: secretCopy(this.#key.key) };
  }

  read(request: Request): Eventually<void> {
    const { buffer, offset } = request;
    if (buffer === null) return undefined;
    const { file, start } = this.#place;
    const read = file.node.read({ ...request, offset: offset + start });
    if (read instanceof Promise) return read.then(() => this.#decrypt(buffer, offset));
    return this.#decrypt(buffer, offset);
  }

  #decrypt(buffer: Uint8Array, offset: number): Eventually<void> {
    if (buffer.length > PIECE_BYTES) return this.#decryptPieces(buffer, offset);
    this.#cipher.decrypt(buffer, this.#sectorAt(offset));
    return undefined;
  }

  async #decryptPieces(buffer: Uint8Array, offset: number): Promise<void> {
    for (let start = 0; start < buffer.length; start += PIECE_BYTES) {
      const piece = buffer.subarray(start, start + PIECE_BYTES);
      this.#cipher.decrypt(piece, this.#sectorAt(offset + start));
      await yieldToLoop();
    }
  }

  write(request: Request): Eventually<void> {
    return request.length <= PIECE_BYTES ? this.#writePiece(request) : this.#writePieces(request);
  }

  async #writePieces(request: Request): Promise<void> {
    for (let start = 0; start < request.length; start += PIECE_BYTES) {
      const buffer = request.buffer?.subarray(start, start + PIECE_BYTES) ?? null;
      const length = buffer?.length ?? 0;
      await this.#writePiece({ ...request, offset: request.offset + start, length, buffer });
      await yieldToLoop();
    }
  }

  #writePiece(request: Request): Eventually<void> {
    if (request.buffer === null) return undefined;
    const buffer = new Uint8Array(request.buffer);
    const { file, start } = this.#place;
    this.#cipher.encrypt(buffer, this.#sectorAt(request.offset));
    return file.node.write({ ...request, offset: request.offset + start, buffer });
  }

  #sectorAt(offset: number): number {
    const sector = offset / this.#key.sectorBytes;
    assert(Number.isInteger(sector), 'a payload is read and written in sectors');
    return sector;
  }

  planExtents(offset: number, length: number): Eventually<readonly Extent[] | null> {
    if (this.#isChained || !this.#isWhole(offset, length)) return null;
    const { file, start } = this.#place;
    return settle(file.node.planExtents(offset + start, length), (extents) => {
      return extents === null ? null : encryptedExtents(extents, { key: this.#key, offset });
    });
  }

  /**
   * What is written into a sector makes others of all blocks behind it. Of sectors longer than the
   * least request that is more than is known to change: who reads them has to wait for the writer.
   */
  get #isChained(): boolean {
    const { spec, sectorBytes } = this.#key;
    return spec.mode === 'cbc' && sectorBytes > SECTOR_BYTES;
  }

  lease(): Lease {
    return this.#place.file.node.lease();
  }

  reserve(offset: number, length: number): Eventually<TargetReservation | null> {
    if (!this.#isWhole(offset, length)) return null;
    const { file, start } = this.#place;
    return settle(file.node.reserve(offset + start, length), (below) =>
      encryptedReservation(below, {
        key: this.#key,
        payloadOffset: start,
        writeZeroes: (at, bytes) => this.#writeZeroes(at, bytes),
      }),
    );
  }

  async #writeZeroes(offset: number, length: number): Promise<void> {
    const zeroes = new Uint8Array(Math.min(length, PIECE_BYTES));
    for (let done = 0; done < length; done += zeroes.length) {
      const buffer = zeroes.subarray(0, Math.min(zeroes.length, length - done));
      await this.write(writeRequest(offset + done, buffer));
    }
  }

  /** Bytes of the payload. Throws kind `too-large` where the file could not be so long. */
  truncate(size: number, options: TruncateOptions): Eventually<void> {
    const { file, start } = this.#place;
    if (size > MAX_OFFSET - start) {
      throw new BlockError('too-large', 'The requested file size is too large');
    }
    return file.node.truncate(size + start, options);
  }

  #isWhole(offset: number, length: number): boolean {
    const { sectorBytes } = this.#key;
    return offset % sectorBytes === 0 && length % sectorBytes === 0;
  }
}
