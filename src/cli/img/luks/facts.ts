// SPDX-License-Identifier: Apache-2.0
// What a LUKS header says, for `luks dump`: everything but key material. Digests and salts are
// no secrets: whoever has the header has them, and no key comes out of them.

import { keyBytesOf, luksModeOf } from '../../../crypto/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { materialBytes, STRIPES } from '../../../crypto/luks/index.js';

/** Names in the manner of QMP; offsets and lengths are bytes. */
export type Facts = { readonly [name: string]: Fact };
type Fact = string | number | boolean | Facts | readonly Facts[];

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
  return `${indent}${`${title}:`.padEnd(NAME_COLUMNS - indent.length)}${value}`;
}
