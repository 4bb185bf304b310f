// SPDX-License-Identifier: Apache-2.0
// What may be told of a LUKS version 2 header, in the shape of version 1 with members beside it:
// the reference opens no such image and has no word for them.

import { BlockError } from '../../base/index.js';
import { STRIPES } from '../luks/index.js';
import type { CipherSpec } from '../names.js';
import type { Luks2Header } from './header.js';
import { ownKeyslots } from './keyslots.js';
import { specOf } from './metadata.js';
import type { Luks2Keyslot } from './metadata.js';

/** Members as QMP spells them; null where the cipher is one that QMP has no name for here. */
export function luks2Facts(header: Luks2Header): Readonly<Record<string, unknown>> | null {
  const spec = dataSpec(header);
  if (spec === null) return null;
  const { cipher, mode, ivGenerator, ivHash } = spec;
  const { segment, digest, label } = header;
  return {
    'ivgen-alg': ivGenerator ?? 'plain64',
    ...(ivHash === null ? {} : { 'ivgen-hash-alg': ivHash }),
    'hash-alg': digest.hash,
    'cipher-alg': cipher,
    uuid: header.uuid,
    'cipher-mode': mode,
    slots: header.keyslots.map((keyslot) => slotFacts(header, keyslot)),
    'payload-offset': segment.offset,
    'master-key-iters': digest.iterations,
    version: 2,
    'sector-size': segment.sectorBytes,
    ...(label === '' ? {} : { label }),
  };
}

function slotFacts({ digest }: Luks2Header, keyslot: Luks2Keyslot): object {
  const { number, areaOffset, use } = keyslot;
  const facts = {
    active: digest.keyslots.includes(number),
    'key-offset': areaOffset,
    keyslot: number,
  };
  if (use instanceof BlockError) return facts;
  const { kdf } = use;
  const cost =
    kdf.type === 'pbkdf2'
      ? { iters: kdf.iterations }
      : { passes: kdf.passes, 'memory-kib': kdf.memoryKib, lanes: kdf.lanes };
  return { ...facts, stripes: STRIPES, kdf: kdf.type, ...cost };
}

/** Of the first key size that the cipher takes. */
function dataSpec(header: Luks2Header): CipherSpec | null {
  const { encryption } = header.segment;
  for (const { keyBytes } of [...ownKeyslots(header), ...header.keyslots]) {
    try {
      return specOf({ encryption, keyBytes, field: 'segments' });
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }
  return null;
}
