// SPDX-License-Identifier: Apache-2.0
// Requests on the bytes behind a header of either version: a read decrypts in place, a write
// encrypts a copy, for the buffer is its owner's.
//
// Long requests go in pieces, and other work gets its turn between them.

import type { Eventually } from '../../../base/index.js';
import { yieldToLoop } from '../../../block/copy/index.js';
import type { Child, Request } from '../../../block/index.js';

/** Bytes that are encrypted or decrypted in one turn of the event loop. */
export const PIECE_BYTES = 1024 * 1024;

export interface PayloadPlace {
  readonly file: Child;
  /** Bytes into the file at which the payload begins. */
  readonly start: number;
  /** In place; `offset` in bytes from the payload's start. */
  crypt(way: 'encrypt' | 'decrypt', bytes: Uint8Array, offset: number): void;
}

export class Payload {
  readonly #place: PayloadPlace;

  constructor(place: PayloadPlace) {
    this.#place = place;
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
    this.#place.crypt('decrypt', buffer, offset);
    return undefined;
  }

  async #decryptPieces(buffer: Uint8Array, offset: number): Promise<void> {
    for (let start = 0; start < buffer.length; start += PIECE_BYTES) {
      this.#place.crypt('decrypt', buffer.subarray(start, start + PIECE_BYTES), offset + start);
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
    this.#place.crypt('encrypt', buffer, request.offset);
    return file.node.write({ ...request, offset: request.offset + start, buffer });
  }
}
