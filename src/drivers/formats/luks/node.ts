// SPDX-License-Identifier: Apache-2.0
// The payload of a LUKS image, decrypted: sectors count from the payload's start.
//
// A write encrypts a copy, piece by piece, for the buffer is its owner's; a read decrypts in
// place. The master key lives in the cipher until the node is closed.

import { BlockError, MAX_OFFSET, settle } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import type {
  AmendContext,
  AmendOptions,
  BlockStatus,
  Child,
  DriverInfo,
  DriverNode,
  NodeLimits,
  OpenContext,
  Request,
  TruncateOptions,
} from '../../../block/index.js';
import { makeSectorCipher, SECTOR_BYTES } from '../../../crypto/index.js';
import type { SectorCipher } from '../../../crypto/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { luksInfo } from './info.js';
import type { KeyslotChanges } from './keyslot-changes.js';

/** Bytes that are encrypted and written at a time. */
const PIECE_BYTES = 1024 * 1024;

const LIMITS: NodeLimits = {
  requestAlignment: SECTOR_BYTES,
  maxTransfer: 0,
  optimalZeroes: 0,
  optimalDiscard: 0,
};

function payloadLength(file: Pick<Child, 'node'>, { payloadOffset }: LuksHeader): number {
  const bytes = Math.max(0, file.node.length - payloadOffset);
  return bytes - (bytes % SECTOR_BYTES);
}

export class LuksNode implements DriverNode {
  readonly limits = LIMITS;
  readonly #file: Child;
  readonly #keyslots: KeyslotChanges;
  readonly #masterKey: Uint8Array;
  readonly #cipher: SectorCipher;

  /** Takes the key, which it wipes when it is closed. */
  constructor(file: Child, keyslots: KeyslotChanges, masterKey: Uint8Array) {
    this.#file = file;
    this.#keyslots = keyslots;
    this.#masterKey = masterKey;
    const { spec } = keyslots.header;
    this.#cipher = makeSectorCipher({ spec, key: masterKey, sectorBytes: SECTOR_BYTES });
  }

  get #header(): LuksHeader {
    return this.#keyslots.header;
  }

  get length(): number {
    return payloadLength(this.#file, this.#header);
  }

  childPermissions(child: Child, parents: PermissionPair): PermissionPair {
    return this.#keyslots.permissions(child.name, parents);
  }

  beginAmend(): () => void {
    return this.#keyslots.begin();
  }

  amend(options: AmendOptions, context: AmendContext): Promise<void> {
    return this.#keyslots.amend(options, context);
  }

  read(request: Request): Eventually<void> {
    const { buffer, offset } = request;
    if (buffer === null) return undefined;
    const below = { ...request, offset: offset + this.#header.payloadOffset };
    return settle(this.#file.node.read(below), () => {
      this.#cipher.decrypt(buffer, offset / SECTOR_BYTES);
    });
  }

  write(request: Request): Eventually<void> {
    return request.length <= PIECE_BYTES ? this.#writePiece(request) : this.#writePieces(request);
  }

  async #writePieces(request: Request): Promise<void> {
    for (let start = 0; start < request.length; start += PIECE_BYTES) {
      const buffer = request.buffer?.subarray(start, start + PIECE_BYTES) ?? null;
      const length = buffer?.length ?? 0;
      await this.#writePiece({ ...request, offset: request.offset + start, length, buffer });
    }
  }

  #writePiece(request: Request): Eventually<void> {
    if (request.buffer === null) return undefined;
    const buffer = Uint8Array.from(request.buffer);
    this.#cipher.encrypt(buffer, request.offset / SECTOR_BYTES);
    const offset = request.offset + this.#header.payloadOffset;
    return this.#file.node.write({ ...request, offset, buffer });
  }

  /** What is encrypted cannot be told from zeroes: all of it is data. */
  blockStatus(offset: number, length: number): BlockStatus {
    return statusOf(this.length - offset, length);
  }

  truncate(size: number, options: TruncateOptions): Eventually<void> {
    const { payloadOffset } = this.#header;
    if (size > MAX_OFFSET - payloadOffset) {
      throw new BlockError('too-large', 'The requested file size is too large');
    }
    return this.#file.node.truncate(size + payloadOffset, options);
  }

  info(): DriverInfo {
    return luksInfo(this.#header);
  }

  /** The key stays what it is, whatever becomes of the secret; the new instance gets a copy. */
  reopen(context: OpenContext): Promise<DriverNode> {
    const key = Uint8Array.from(this.#masterKey);
    return Promise.resolve(new LuksNode(context.child('file'), this.#keyslots, key));
  }

  close(): Promise<void> {
    this.#masterKey.fill(0);
    return Promise.resolve();
  }
}

/** An image without its key: only what the header says. */
export class InspectedLuks implements DriverNode {
  readonly limits = LIMITS;
  readonly #file: Child;
  readonly #header: LuksHeader;

  constructor(file: Child, header: LuksHeader) {
    this.#file = file;
    this.#header = header;
  }

  get length(): number {
    return payloadLength(this.#file, this.#header);
  }

  read(): never {
    throw new BlockError('permission', 'The image was opened without its key');
  }

  blockStatus(offset: number, length: number): BlockStatus {
    return statusOf(this.length - offset, length);
  }

  /** As its users need it: nothing for itself. */
  childPermissions(_child: Child, parents: PermissionPair): PermissionPair {
    return parents;
  }

  info(): DriverInfo {
    return luksInfo(this.#header);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function statusOf(rest: number, length: number): BlockStatus {
  const known = Math.min(rest, length);
  return { length: known, allocated: true, data: true, zero: false, compressed: false };
}
