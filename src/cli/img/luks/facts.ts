// SPDX-License-Identifier: Apache-2.0
// What a LUKS header says, for `luks dump`: everything but key material. Digests and salts are
// no secrets: whoever has the header has them, and no key comes out of them.

import { BlockError } from '../../../base/index.js';
import { keyBytesOf, luksModeOf } from '../../../crypto/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { materialBytes, STRIPES } from '../../../crypto/luks/index.js';
import type { Luks2Header, Luks2Keyslot } from '../../../crypto/luks2/index.js';

/** Names in the manner of QMP; offsets and lengths are bytes. */
export type Facts = { readonly [name: string]: Fact };
type Fact = string | number | bigint | boolean | Facts | readonly Facts[];

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
  const { segment, digest } = header;
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
    flags: header.flags.join(' '),
    tokens: header.tokens.join(' '),
    cipher: segment.encryption,
    'sector-size': segment.sectorBytes,
    'payload-offset': segment.offset,
    'payload-bytes': segment.size ?? 'dynamic',
    'vector-offset': segment.vectorOffset,
    digest: {
      number: digest.number,
      hash: digest.hash,
      iterations: digest.iterations,
      salt: hex(digest.salt),
      value: hex(digest.value),
    },
    keyslots: header.keyslots.map((keyslot) => ({
      keyslot: keyslot.number,
      active: digest.keyslots.includes(keyslot.number),
      type: keyslot.type,
      priority: keyslot.priority,
      'key-bits': keyslot.keyBytes * 8,
      cipher: keyslot.encryption,
      'material-offset': keyslot.areaOffset,
      'material-bytes': keyslot.areaBytes,
      ...useFacts(keyslot),
    })),
  };
}

function useFacts({ use }: Luks2Keyslot): Facts {
  if (use instanceof BlockError) return { unusable: use.message };
  const { kdf, hash } = use;
  const { salt } = kdf;
  const cost: Facts =
    kdf.type === 'pbkdf2'
      ? { 'kdf-hash': kdf.hash, iterations: kdf.iterations }
      : { passes: kdf.passes, 'memory-kib': kdf.memoryKib, lanes: kdf.lanes };
  return { kdf: kdf.type, ...cost, salt: hex(salt), stripes: STRIPES, 'stripes-hash': hash };
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

const NAME_COLUMNS = 20;

/** One fact a line, those of a list under its name and number. */
export function factLines(facts: Facts, indent = ''): string[] {
  return Object.entries(facts).flatMap(([name, value]) => {
    const label = name.replaceAll('-', ' ');
    if (typeof value !== 'object') return [lineOf(indent, label, String(value))];
    if (!isList(value)) return [`${indent}${label}:`, ...factLines(value, `${indent}  `)];
    return value.flatMap((each) => {
      const [first, ...rest] = Object.entries(each);
      const [what, number] = first ?? [name, ''];
      const title = `${indent}${what} ${JSON.stringify(number)}:`;
      return [title, ...factLines(Object.fromEntries(rest), `${indent}  `)];
    });
  });
}

function isList(value: Facts | readonly Facts[]): value is readonly Facts[] {
  return Array.isArray(value);
}

function lineOf(indent: string, title: string, value: string): string {
  const shown = value === '' ? '-' : value;
  return `${indent}${`${title}:`.padEnd(NAME_COLUMNS - indent.length)}${shown}`;
}
