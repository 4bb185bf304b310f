// SPDX-License-Identifier: Apache-2.0
// The payload of a LUKS version 2 image, decrypted.
//
// Its sectors are of 512 to 4,096 bytes, and initial vectors count 512 bytes whatever the sector,
// from the number on that the segment says: so longer sectors are encrypted one by one. Otherwise
// as with version 1; the key is wiped at the end. Bulk copies go through the node.

import { BlockError, MAX_OFFSET, Permission, secretCopy } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import type {
  BlockStatus,
  Child,
  DriverInfo,
  DriverNode,
  Lease,
  NodeLimits,
  OpenContext,
  Request,
  TruncateOptions,
} from '../../../block/index.js';
import { makeSectorCipher, SECTOR_BYTES } from '../../../crypto/index.js';
import type { CipherSpec, SectorCipher } from '../../../crypto/index.js';
import type { Luks2Segment } from '../../../crypto/luks2/index.js';
import { Payload } from './payload.js';

interface SegmentKey {
  readonly spec: CipherSpec;
  readonly masterKey: Uint8Array;
}

/** An image without its key: only what the header says. */
export class InspectedLuks2 implements DriverNode {
  readonly limits: NodeLimits;
  protected readonly file: Child;
  protected readonly segment: Luks2Segment;

  constructor(file: Child, segment: Luks2Segment) {
    this.file = file;
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
    return { encrypted: true };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

export class Luks2Node extends InspectedLuks2 {
  readonly #spec: CipherSpec;
  readonly #masterKey: Uint8Array;
  readonly #cipher: SectorCipher;
  readonly #payload: Payload;

  /** Takes the key, which it wipes when it is closed. */
  constructor(file: Child, segment: Luks2Segment, { spec, masterKey }: SegmentKey) {
    super(file, segment);
    this.#spec = spec;
    this.#masterKey = masterKey;
    const { sectorBytes } = segment;
    const cipher = makeSectorCipher({ spec, key: masterKey, sectorBytes });
    this.#cipher = cipher;
    this.#payload = new Payload({
      file,
      start: segment.offset,
      crypt: (way, bytes, offset) => cryptSectors(segment, { cipher, way }, { bytes, offset }),
    });
  }

  override read(request: Request): Eventually<void> {
    return this.#payload.read(request);
  }

  write(request: Request): Eventually<void> {
    return this.#payload.write(request);
  }

  planExtents(): null {
    return null;
  }

  reserve(): null {
    return null;
  }

  lease(): Lease {
    return this.file.node.lease();
  }

  truncate(size: number, options: TruncateOptions): Eventually<void> {
    const { offset, size: fixed } = this.segment;
    if (fixed !== null) {
      throw new BlockError('unsupported', 'LUKS2 header: its segment has a size of its own');
    }
    if (size > MAX_OFFSET - offset) {
      throw new BlockError('too-large', 'The requested file size is too large');
    }
    return this.file.node.truncate(size + offset, options);
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

  /** The key stays what it is, whatever becomes of the secret; the new instance gets a copy. */
  reopen(context: OpenContext): Promise<DriverNode> {
    const masterKey = secretCopy(this.#masterKey);
    const key = { spec: this.#spec, masterKey };
    return Promise.resolve(new Luks2Node(context.child('file'), this.segment, key));
  }

  override close(): Promise<void> {
    this.#cipher.wipe();
    this.#masterKey.fill(0);
    return Promise.resolve();
  }
}

/** In place; `offset` is that of the bytes in the payload. */
function cryptSectors(
  { sectorBytes, vectorOffset }: Luks2Segment,
  { cipher, way }: { readonly cipher: SectorCipher; readonly way: 'encrypt' | 'decrypt' },
  { bytes, offset }: { readonly bytes: Uint8Array; readonly offset: number },
): void {
  const first = vectorOffset + offset / SECTOR_BYTES;
  if (sectorBytes === SECTOR_BYTES) {
    cipher[way](bytes, first);
    return;
  }
  for (let start = 0; start < bytes.length; start += sectorBytes) {
    cipher[way](bytes.subarray(start, start + sectorBytes), first + start / SECTOR_BYTES);
  }
}
