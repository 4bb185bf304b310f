// SPDX-License-Identifier: Apache-2.0
// A LUKS image of version 2 as a node, for its data alone.
//
// Its sectors are of 512 to 4,096 bytes, and initial vectors count 512 bytes whatever the sector,
// from the number on that the segment says. Otherwise the payload is as with version 1.

import { BlockError, Permission } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import type {
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
import type { CipherKey } from '../../../crypto/index.js';
import type { Luks2Header, Luks2Segment } from '../../../crypto/luks2/index.js';
import { luks2Info } from './info.js';
import type { OpenIfOther } from './node.js';
import { Payload } from './payload.js';

/** An image without its key: only what the header says. */
export class InspectedLuks2 implements DriverNode {
  readonly limits: NodeLimits;
  protected readonly file: Child;
  protected readonly header: Luks2Header;
  protected readonly segment: Luks2Segment;

  constructor(file: Child, header: Luks2Header) {
    const { segment } = header;
    this.file = file;
    this.header = header;
    this.segment = segment;
    this.limits = {
      requestAlignment: segment.sectorBytes,
      maxTransfer: 0,
      optimalZeroes: 0,
      optimalDiscard: 0,
    };
  }

  get length(): number {
    const { offset, size, sectorBytes } = this.segment;
    if (size !== null) return size;
    const bytes = Math.max(0, this.file.node.length - offset);
    return bytes - (bytes % sectorBytes);
  }

  read(_request: Request): Eventually<void> {
    throw new BlockError('permission', 'The image was opened without its key');
  }

  /** What is encrypted cannot be told from zeroes: all of it is data. */
  blockStatus(offset: number, length: number): BlockStatus {
    const known = Math.min(this.length - offset, length);
    return { length: known, allocated: true, data: true, zero: false, compressed: false };
  }

  /** As its users need it: nothing for itself. */
  childPermissions(_child: Child, parents: PermissionPair): PermissionPair {
    return parents;
  }

  info(): DriverInfo {
    return luks2Info(this.header);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

export interface Luks2Parts {
  readonly file: Child;
  readonly header: Luks2Header;
  readonly openIfOther: OpenIfOther;
}

export class Luks2Node extends InspectedLuks2 {
  readonly storesZeroes = true;
  readonly #parts: Luks2Parts;
  readonly #payload: Payload;

  /** Takes the key: wiped at once, and the copy when the node is closed. */
  constructor(parts: Luks2Parts, { spec, key }: Pick<CipherKey, 'spec' | 'key'>) {
    const { file, header } = parts;
    super(file, header);
    this.#parts = parts;
    const { sectorBytes, vectorOffset, offset: start } = header.segment;
    const vectors = { first: vectorOffset, count512: true };
    this.#payload = new Payload({ file, start }, { spec, key, sectorBytes, vectors });
  }

  override read(request: Request): Eventually<void> {
    return this.#payload.read(request);
  }

  write(request: Request): Eventually<void> {
    return this.#payload.write(request);
  }

  planExtents(offset: number, length: number): Eventually<readonly Extent[] | null> {
    return this.#payload.planExtents(offset, length);
  }

  reserve(offset: number, length: number): Eventually<TargetReservation | null> {
    return this.#payload.reserve(offset, length);
  }

  lease(): Lease {
    return this.#payload.lease();
  }

  truncate(size: number, options: TruncateOptions): Eventually<void> {
    const { size: fixed, sectorBytes } = this.segment;
    if (fixed !== null) {
      throw new BlockError('unsupported', 'LUKS2 header: its segment has a size of its own');
    }
    if (size % sectorBytes !== 0) {
      const text = `The new size must be a multiple of ${sectorBytes}`;
      throw new BlockError('invalid-option', text);
    }
    return this.#payload.truncate(size, options);
  }

  /** A header that lies apart is read alone, and nobody may change it meanwhile. */
  override childPermissions(child: Child, { taken, shared }: PermissionPair): PermissionPair {
    const { consistentRead, write, resize, all } = Permission;
    return child.name === 'header'
      ? { taken: consistentRead, shared: all & ~(write | resize) }
      : { taken: taken | consistentRead, shared };
  }

  amend(): Promise<void> {
    throw new BlockError('unsupported', 'Keyslots of LUKS version 2 cannot be changed');
  }

  /** As with version 1. */
  async reopen(
    context: OpenContext,
    options: Readonly<Record<string, unknown>>,
  ): Promise<DriverNode> {
    const file = context.child('file');
    if (file.node !== this.file.node) {
      const other = await this.#parts.openIfOther(context, options);
      if (other !== null) return other;
    }
    return new Luks2Node({ ...this.#parts, file }, this.#payload.copyOfKey());
  }

  override close(): Promise<void> {
    this.#payload.wipe();
    return Promise.resolve();
  }
}
