// SPDX-License-Identifier: Apache-2.0
// The payload of a LUKS image, decrypted: sectors count from the payload's start.
//
// Bulk copies go past the node: they get the ranges of the file and the cipher. The master key lies
// in shared memory, where lanes find it, until the node is closed.

import { BlockError, MAX_OFFSET, secretCopy, settle } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import { encryptedExtents, writeRequest } from '../../../block/index.js';
import type {
  AmendContext,
  AmendOptions,
  BlockStatus,
  Child,
  DriverInfo,
  DriverNode,
  Extent,
  Lease,
  NodeLimits,
  OpenContext,
  Request,
  TargetReservation,
  TruncateOptions,
} from '../../../block/index.js';
import { makeSectorCipher, SECTOR_BYTES, sharedCipherKey } from '../../../crypto/index.js';
import type { CipherKey, SectorCipher } from '../../../crypto/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { luksInfo } from './info.js';
import type { KeyslotChanges } from './keyslot-changes.js';
import { encryptedReservation } from './lanes.js';
import { Payload, PIECE_BYTES } from './payload.js';

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
  readonly storesZeroes = true;
  readonly #file: Child;
  readonly #keyslots: KeyslotChanges;
  readonly #key: CipherKey;
  readonly #cipher: SectorCipher;
  readonly #payload: Payload;

  /** Takes the key: wiped at once, and the copy when the node is closed. */
  constructor(file: Child, keyslots: KeyslotChanges, masterKey: Uint8Array) {
    this.#file = file;
    this.#keyslots = keyslots;
    const { spec } = keyslots.header;
    this.#key = sharedCipherKey({ spec, key: masterKey, sectorBytes: SECTOR_BYTES });
    masterKey.fill(0);
    this.#cipher = makeSectorCipher(this.#key);
    this.#payload = new Payload({
      file,
      start: keyslots.header.payloadOffset,
      crypt: (way, bytes, offset) => this.#cipher[way](bytes, offset / SECTOR_BYTES),
    });
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
    return this.#payload.read(request);
  }

  write(request: Request): Eventually<void> {
    return this.#payload.write(request);
  }

  /** What is encrypted cannot be told from zeroes: all of it is data. */
  blockStatus(offset: number, length: number): BlockStatus {
    return statusOf(this.length - offset, length);
  }

  planExtents(offset: number, length: number): Eventually<readonly Extent[] | null> {
    if (!isWhole(offset, length)) return null;
    const below = this.#file.node.planExtents(offset + this.#header.payloadOffset, length);
    return settle(below, (extents) => {
      return extents === null ? null : encryptedExtents(extents, { key: this.#key, offset });
    });
  }

  lease(): Lease {
    return this.#file.node.lease();
  }

  reserve(offset: number, length: number): Eventually<TargetReservation | null> {
    if (!isWhole(offset, length)) return null;
    const { payloadOffset } = this.#header;
    return settle(this.#file.node.reserve(offset + payloadOffset, length), (below) =>
      encryptedReservation(below, {
        key: this.#key,
        payloadOffset,
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
    const key = secretCopy(this.#key.key);
    return Promise.resolve(new LuksNode(context.child('file'), this.#keyslots, key));
  }

  close(): Promise<void> {
    this.#cipher.wipe();
    this.#key.key.fill(0);
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

function isWhole(offset: number, length: number): boolean {
  return offset % SECTOR_BYTES === 0 && length % SECTOR_BYTES === 0;
}

function statusOf(rest: number, length: number): BlockStatus {
  const known = Math.min(rest, length);
  return { length: known, allocated: true, data: true, zero: false, compressed: false };
}
