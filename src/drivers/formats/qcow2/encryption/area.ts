// SPDX-License-Identifier: Apache-2.0
// The LUKS header of an encrypted image: clusters of the file that a header extension names.
//
// Key material counts from the start of that area and stays within it, whatever the header says;
// the payload's offset in it means nothing here, but has to be one that could be.

import { BlockError } from '../../../../base/index.js';
import { nodeArea } from '../../../../block/index.js';
import type { Child } from '../../../../block/index.js';
import { HEADER_BYTES, parseLuksHeader } from '../../../../crypto/luks/index.js';
import type { LuksArea, LuksHeader } from '../../../../crypto/luks/index.js';
import type { CryptHeaderPlace, Qcow2Header } from '../header.js';
import { CryptMethod } from '../layout.js';

/** The area and what its header says; `header` is replaced where keyslots change. */
export interface CryptHeader {
  readonly area: LuksArea;
  header: LuksHeader;
}

/** Throws kind `unsupported` for an image that has none. */
export function locateCryptHeader({ cryptHeader, fields }: Qcow2Header): CryptHeaderPlace {
  if (cryptHeader !== null) return cryptHeader;
  const how = fields.cryptMethod === CryptMethod.none ? 'not encrypted' : 'encrypted with AES';
  const text = `The qcow2 image is ${how}: it has no LUKS header`;
  throw new BlockError('unsupported', text);
}

/** Throws kind `corrupt-image` or `unsupported` naming the field. */
export async function readCryptHeader(
  file: Pick<Child, 'node'>,
  place: CryptHeaderPlace,
): Promise<CryptHeader> {
  const area = areaOf(file, place);
  const bytes = await area.read(0, HEADER_BYTES);
  return { area, header: parseLuksHeader(bytes, { detached: false }) };
}

function areaOf(
  file: Pick<Child, 'node'>,
  { offset: start, length: end }: CryptHeaderPlace,
): LuksArea {
  return nodeArea(file, {
    start,
    requireInside(offset, length) {
      if (offset + length <= end) return;
      const detail = `${length} bytes at ${offset} of ${end}`;
      const text = `Request for data outside of extension header (${detail})`;
      throw new BlockError('corrupt-image', text, { detail });
    },
  });
}
