// SPDX-License-Identifier: Apache-2.0
// A LUKS image of version 1 as a node: its payload, and keyslots that may change meanwhile.
//
// The master key is the payload's, until the node is closed.

import { BlockError } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
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
import { SECTOR_BYTES } from '../../../crypto/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { luksInfo } from './info.js';
import type { KeyslotChanges } from './keyslot-changes.js';
import { Payload } from './payload.js';

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

/** Opens what the file holds when it is of another volume than before; null: of the same. */
export type OpenIfOther = (
  context: OpenContext,
  options: Readonly<Record<string, unknown>>,
) => Promise<DriverNode | null>;

export interface LuksParts {
  readonly file: Child;
  readonly keyslots: KeyslotChanges;
  readonly openIfOther: OpenIfOther;
}

export class LuksNode implements DriverNode {
  readonly limits = LIMITS;
  readonly storesZeroes = true;
  readonly #parts: LuksParts;
  readonly #file: Child;
  readonly #keyslots: KeyslotChanges;
  readonly #payload: Payload;

  /** Takes the key: wiped at once, and the copy when the node is closed. */
  constructor(parts: LuksParts, masterKey: Uint8Array) {
    const { file, keyslots } = parts;
    this.#parts = parts;
    this.#file = file;
    this.#keyslots = keyslots;
    const { spec, payloadOffset } = keyslots.header;
    const cipher = { spec, key: masterKey, sectorBytes: SECTOR_BYTES };
    this.#payload = new Payload({ file, start: payloadOffset }, cipher);
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
    return this.#payload.planExtents(offset, length);
  }

  lease(): Lease {
    return this.#payload.lease();
  }

  reserve(offset: number, length: number): Eventually<TargetReservation | null> {
    return this.#payload.reserve(offset, length);
  }

  truncate(size: number, options: TruncateOptions): Eventually<void> {
    return this.#payload.truncate(size, options);
  }

  info(): DriverInfo {
    return luksInfo(this.#header);
  }

  /**
   * The key stays what it is, whatever becomes of the secret; the new instance gets a copy. A file
   * of another volume is opened as any other.
   */
  async reopen(
    context: OpenContext,
    options: Readonly<Record<string, unknown>>,
  ): Promise<DriverNode> {
    const file = context.child('file');
    if (file.node !== this.#file.node) {
      const other = await this.#parts.openIfOther(context, options);
      if (other !== null) return other;
    }
    return new LuksNode({ ...this.#parts, file }, this.#payload.copyOfKey().key);
  }

  close(): Promise<void> {
    this.#payload.wipe();
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
