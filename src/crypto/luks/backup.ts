// SPDX-License-Identifier: Apache-2.0
// A LUKS version 1 header area as one piece, to be kept apart: the header and all key material.
//
// The bytes are those of the image, as `cryptsetup luksHeaderBackup` keeps them: up to the end of
// the last key material, in whole pages, with what lies unused between a header of 1,024 bytes
// and key material at 4,096 zeroed.

import { BlockError, CRYPTO_LIMITS } from '../../base/index.js';
import { parseLuksHeader, materialBytes } from './header.js';
import type { LuksHeader } from './header.js';
import type { LuksArea } from './keyslots.js';
import { HEADER, HEADER_BYTES, MATERIAL_ALIGNMENT } from './layout.js';

const PAGE_BYTES = 4096;
/** What other programs take for a header, padding and all. */
const PADDED_HEADER_BYTES = 1024;

/** Bytes from the header's start to the end of the last key material, in whole pages. */
export function backupBytes({ spec, keyslots }: LuksHeader): number {
  const last = Math.max(...keyslots.map(({ materialOffset }) => materialOffset));
  const bytes = Math.ceil((last + materialBytes(spec)) / PAGE_BYTES) * PAGE_BYTES;
  if (bytes <= CRYPTO_LIMITS.headerAreaBytes) return bytes;
  throw new BlockError(
    'unsupported',
    `LUKS header: its area of ${bytes} bytes is more than ${CRYPTO_LIMITS.headerAreaBytes}`,
  );
}

/** The header at the start of `bytes`, which may be that of a payload in another file. */
export function parseAnyLuksHeader(bytes: Uint8Array): LuksHeader {
  const isPlaced = bytes.length >= HEADER.size;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const detached = isPlaced && view.getUint32(PAYLOAD_OFFSET_AT) === 0;
  return parseLuksHeader(bytes.subarray(0, HEADER_BYTES), { detached });
}

const PAYLOAD_OFFSET_AT = 104;

/**
 * What a backup of the header holds. Throws kind `corrupt-image` where the area ends before, `busy`
 * where keyslots do not cease to change.
 */
export async function readBackup(area: LuksArea, header: LuksHeader): Promise<Uint8Array> {
  const bytes = await readSteadily(area, { length: backupBytes(header), head: HEADER_BYTES });
  const [first] = header.keyslots;
  if (first?.materialOffset === MATERIAL_ALIGNMENT) {
    bytes.fill(0, PADDED_HEADER_BYTES, MATERIAL_ALIGNMENT);
  }
  return bytes;
}

/**
 * The first `length` bytes. Whoever changes them meanwhile changes the first `head` of them before
 * key material goes and after it came: these are the same before, in the copy, and after.
 */
export async function readSteadily(
  area: LuksArea,
  { length, head }: { readonly length: number; readonly head: number },
): Promise<Uint8Array> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const before = await area.read(0, head);
    const bytes = await area.read(0, length);
    const after = await area.read(0, head);
    const copied = bytes.subarray(0, head);
    if (Buffer.compare(before, copied) === 0 && Buffer.compare(copied, after) === 0) return bytes;
  }
  throw new BlockError('busy', 'LUKS header: its keyslots are being changed');
}

const ATTEMPTS = 3;

/** Header of a backup that is whole. Throws kind `corrupt-image`. */
export function parseBackup(bytes: Uint8Array): LuksHeader {
  const header = parseAnyLuksHeader(bytes);
  const expected = backupBytes(header);
  if (bytes.length >= expected) return header;
  throw new BlockError(
    'corrupt-image',
    `LUKS header: the backup ends at ${bytes.length} bytes of ${expected}`,
  );
}
