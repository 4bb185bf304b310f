// SPDX-License-Identifier: Apache-2.0
// What a LUKS header says, for people and for scripts that read the output of `cryptsetup
// luksDump`: the lines are the same, character for character.
//
// Only what that program has no line for is added: a copy of the header that is broken, and why a
// keyslot cannot be used here.

import { BlockError, escapeControls } from '../../../base/index.js';
import { keyBytesOf, luksModeOf } from '../../../crypto/index.js';
import { STRIPES } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import type {
  Luks2DigestEntry,
  Luks2Header,
  Luks2Keyslot,
  Luks2Segment,
} from '../../../crypto/luks2/index.js';

const SECTOR_BYTES = 512;
/** Bytes of a salt or digest that stand in one line. */
const ROW_BYTES = 16;
const PRIORITIES = ['ignored', 'normal', 'preferred'];

export function luks1Text(header: LuksHeader, name: string): string[] {
  const { spec, keyslots } = header;
  const under = '\n               \t';
  const lines = [
    `LUKS header information for ${name}`,
    '',
    'Version:       \t1',
    'Cipher name:   \taes',
    `Cipher mode:   \t${luksModeOf(spec)}`,
    `Hash spec:     \t${header.hash}`,
    `Payload offset:\t${header.payloadOffset / SECTOR_BYTES}`,
    `MK bits:       \t${keyBytesOf(spec) * 8}`,
    `MK digest:     \t${rowOf(header.mkDigest)}`,
    `MK salt:       \t${rowsOf(header.mkDigestSalt).join(under)}`,
    `MK iterations: \t${header.mkDigestIterations}`,
    `UUID:          \t${header.uuid}`,
    '',
  ];
  for (const [slot, { active, iterations, salt, materialOffset }] of keyslots.entries()) {
    lines.push(`Key Slot ${slot}: ${active ? 'ENABLED' : 'DISABLED'}`);
    if (!active) continue;
    lines.push(
      `\tIterations:         \t${iterations}`,
      `\tSalt:               \t${rowsOf(salt).join('\n\t                      \t')}`,
      `\tKey material offset:\t${materialOffset / SECTOR_BYTES}`,
      `\tAF stripes:            \t${STRIPES}`,
    );
  }
  return lines;
}

export function luks2Text(header: Luks2Header): string[] {
  return [
    'LUKS header information',
    'Version:       \t2',
    `Epoch:         \t${header.sequence}`,
    `Metadata area: \t${header.copyBytes} [bytes]`,
    `Keyslots area: \t${header.keyslotsBytes} [bytes]`,
    `UUID:          \t${escapeControls(header.uuid || '(no UUID)')}`,
    `Label:         \t${escapeControls(header.label || '(no label)')}`,
    `Subsystem:     \t${escapeControls(header.subsystem || '(no subsystem)')}`,
    `Flags:       \t${flagsOf(header)}`,
    ...copyLines(header),
    '',
    'Data segments:',
    ...segmentLines(header.segmentNumber, header.segment),
    '',
    'Keyslots:',
    ...header.keyslots.flatMap((keyslot) => keyslotLines(header, keyslot)),
    'Tokens:',
    ...header.tokens.flatMap(({ number, type, keyslots, keyDescription }) => [
      `  ${number}: ${escapeControls(type)}`,
      ...descriptionLines(keyDescription),
      ...keyslots.map((keyslot) => `\tKeyslot:    ${keyslot}`),
    ]),
    'Digests:',
    ...header.digests.flatMap(digestLines),
  ];
}

function descriptionLines(text: string | null): string[] {
  return text === null ? [] : [`\tKey description: ${escapeControls(text)}`];
}

function flagsOf({ flags }: Luks2Header): string {
  return flags.map((flag) => `${escapeControls(flag)} `).join('') || '(no flags)';
}

function copyLines({ copies }: Luks2Header): string[] {
  const { primary, secondary } = copies;
  if (primary === 'valid' && secondary === 'valid') return [];
  return [`Copies:        \tfirst ${primary}, second ${secondary}`];
}

function segmentLines(number: number, segment: Luks2Segment): string[] {
  const { size, flags } = segment;
  return [
    `  ${number}: crypt`,
    `\toffset: ${segment.offset} [bytes]`,
    `\tlength: ${size === null ? '(whole device)' : `${size} [bytes]`}`,
    `\tcipher: ${escapeControls(segment.encryption)}`,
    `\tsector: ${segment.sectorBytes} [bytes]`,
    ...(flags.length === 0 ? [] : [`\tflags : ${escapeControls(flags.join(', '))}`]),
  ];
}

function keyslotLines(header: Luks2Header, keyslot: Luks2Keyslot): string[] {
  const { number, type, keyBytes, priority, encryption } = keyslot;
  const digest = header.digests.find(({ keyslots }) => keyslots.includes(number));
  const isUnbound = digest?.segments.length === 0;
  return [
    `  ${number}: ${escapeControls(type)}${isUnbound ? ' (unbound)' : ''}`,
    `\tKey:        ${keyBytes * 8} bits`,
    `\tPriority:   ${PRIORITIES[priority] ?? priority}`,
    `\tCipher:     ${escapeControls(encryption)}`,
    ...useLines(keyslot),
    `\tArea offset:${keyslot.areaOffset} [bytes]`,
    `\tArea length:${keyslot.areaBytes} [bytes]`,
    ...(digest === undefined ? [] : [`\tDigest ID:  ${digest.number}`]),
  ];
}

function useLines({ use }: Luks2Keyslot): string[] {
  if (use instanceof BlockError) return [`\tNot usable: ${escapeControls(use.message)}`];
  const { spec, kdf, hash } = use;
  const costs =
    kdf.type === 'pbkdf2'
      ? [`\tHash:       ${kdf.hash}`, `\tIterations: ${kdf.iterations}`]
      : [
          `\tTime cost:  ${kdf.passes}`,
          `\tMemory:     ${kdf.memoryKib}`,
          `\tThreads:    ${kdf.lanes}`,
        ];
  return [
    `\tCipher key: ${keyBytesOf(spec) * 8} bits`,
    `\tPBKDF:      ${kdf.type}`,
    ...costs,
    `\tSalt:       ${rowsOf(kdf.salt).join(UNDER)}`,
    `\tAF stripes: ${STRIPES}`,
    `\tAF hash:    ${hash}`,
  ];
}

function digestLines({ number, type, digest }: Luks2DigestEntry): string[] {
  const title = `  ${number}: ${escapeControls(type)}`;
  if (digest === null) return [title];
  return [
    title,
    `\tHash:       ${digest.hash}`,
    `\tIterations: ${digest.iterations}`,
    `\tSalt:       ${rowsOf(digest.salt).join(UNDER)}`,
    `\tDigest:     ${rowsOf(digest.value).join(UNDER)}`,
  ];
}

const UNDER = '\n\t            ';

function rowsOf(bytes: Uint8Array): string[] {
  const rows: string[] = [];
  for (let start = 0; start < bytes.length; start += ROW_BYTES) {
    rows.push(rowOf(bytes.subarray(start, start + ROW_BYTES)));
  }
  return rows;
}

function rowOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => `${byte.toString(16).padStart(2, '0')} `).join('');
}
