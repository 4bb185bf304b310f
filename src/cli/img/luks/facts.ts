// SPDX-License-Identifier: Apache-2.0
// What a LUKS header says, for `luks dump --output=json`: everything but key material. Digests and
// salts are no secrets: whoever has the header has them, and no key comes out of them.

import { BlockError } from '../../../base/index.js';
import { keyBytesOf, luksModeOf } from '../../../crypto/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { materialBytes, STRIPES } from '../../../crypto/luks/index.js';
import type { Luks2Header, Luks2Keyslot } from '../../../crypto/luks2/index.js';

/** Names in the manner of QMP; offsets and lengths are bytes, salts and digests hexadecimal. */
export type Facts = { readonly [name: string]: unknown };

export function luks1Facts(header: LuksHeader): Facts {
  const { spec, hash, keyslots } = header;
  return {
    version: 1,
    uuid: header.uuid,
    cipher: `aes-${luksModeOf(spec)}`,
    'key-bits': keyBytesOf(spec) * 8,
    hash,
    'payload-offset': header.payloadOffset,
    digest: {
      iterations: header.mkDigestIterations,
      salt: hex(header.mkDigestSalt),
      value: hex(header.mkDigest),
    },
    keyslots: keyslots.map(({ active, iterations, salt, materialOffset }, slot) => ({
      keyslot: slot,
      active,
      ...(active ? { iterations, salt: hex(salt), stripes: STRIPES } : {}),
      'material-offset': materialOffset,
      'material-bytes': materialBytes(spec),
    })),
  };
}

export function luks2Facts(header: Luks2Header): Facts {
  const { segment } = header;
  return {
    version: 2,
    uuid: header.uuid,
    label: header.label,
    subsystem: header.subsystem,
    sequence: header.sequence,
    'header-bytes': header.copyBytes,
    'keyslots-bytes': header.keyslotsBytes,
    'primary-copy': header.copies.primary,
    'secondary-copy': header.copies.secondary,
    flags: header.flags,
    cipher: segment.encryption,
    'payload-offset': segment.offset,
    segments: [
      {
        segment: header.segmentNumber,
        offset: segment.offset,
        ...(segment.size === null ? {} : { length: segment.size }),
        'vector-offset': segment.vectorOffset,
        cipher: segment.encryption,
        'sector-size': segment.sectorBytes,
        flags: segment.flags,
      },
    ],
    keyslots: header.keyslots.map((keyslot) => keyslotFacts(header, keyslot)),
    tokens: header.tokens.map(({ number, type, keyslots, keyDescription }) => ({
      token: number,
      type,
      keyslots,
      ...(keyDescription === null ? {} : { 'key-description': keyDescription }),
    })),
    digests: header.digests.map(({ number, type, keyslots, segments, digest }) => ({
      digest: number,
      type,
      keyslots,
      segments,
      ...(digest === null
        ? {}
        : {
            hash: digest.hash,
            iterations: digest.iterations,
            salt: hex(digest.salt),
            value: hex(digest.value),
          }),
    })),
  };
}

function keyslotFacts(header: Luks2Header, keyslot: Luks2Keyslot): Facts {
  return {
    keyslot: keyslot.number,
    active: header.digest.keyslots.includes(keyslot.number),
    type: keyslot.type,
    priority: keyslot.priority,
    'key-bits': keyslot.keyBytes * 8,
    cipher: keyslot.encryption,
    'material-offset': keyslot.areaOffset,
    'material-bytes': keyslot.areaBytes,
    ...useFacts(keyslot),
  };
}

function useFacts({ use }: Luks2Keyslot): Facts {
  if (use instanceof BlockError) return { unusable: use.message };
  const { kdf, hash, spec } = use;
  const { salt } = kdf;
  const cost: Facts =
    kdf.type === 'pbkdf2'
      ? { 'kdf-hash': kdf.hash, iterations: kdf.iterations }
      : { passes: kdf.passes, 'memory-kib': kdf.memoryKib, lanes: kdf.lanes };
  return {
    'cipher-key-bits': keyBytesOf(spec) * 8,
    kdf: kdf.type,
    ...cost,
    salt: hex(salt),
    stripes: STRIPES,
    'stripes-hash': hash,
  };
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
