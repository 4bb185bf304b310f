// SPDX-License-Identifier: Apache-2.0
// `encrypt.*` and the older `encryption=on` of a command line as the member of blockdev-create.

import { BlockError } from '../../../base/index.js';
import { luksCreateMembers } from '../../../crypto/options.js';
import { validate } from '../../../schema/index.js';
import type { CreateMembers } from './options.js';

const PREFIX = 'encrypt.';

/** The members of a qcow2 image with `encrypt` in one piece, in the reference's refusals. */
export function withEncryption(members: CreateMembers): Readonly<Record<string, unknown>> {
  const given: CreateMembers = {};
  const others: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(members)) {
    if (name.startsWith(PREFIX)) given[name.slice(PREFIX.length)] = value;
    else if (name !== 'encryption') others[name] = value;
  }
  const isOlder = members['encryption'] === true;
  const { format: named, ...rest } = given;
  if (isOlder && named !== undefined) {
    throw invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  }
  const format = isOlder ? 'aes' : named;
  if (format === undefined) {
    if (Object.keys(rest).length === 0) return others;
    throw invalid("Parameter 'encrypt.format' is missing");
  }
  return { ...others, encrypt: encryptMember(String(format), rest) };
}

function encryptMember(
  format: string,
  members: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  if (format === 'luks') return { format, ...validate(luksCreateMembers, members) };
  if (format !== 'aes') throw invalid(`Parameter 'format' does not accept value '${format}'`);
  const unknown = Object.keys(members).find((name) => name !== 'key-secret');
  if (unknown !== undefined) throw invalid(`Parameter '${PREFIX}${unknown}' is unexpected`);
  return { format: 'qcow', ...members };
}

function invalid(text: string): BlockError {
  return new BlockError('invalid-option', text);
}
