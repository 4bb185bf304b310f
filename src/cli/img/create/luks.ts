// SPDX-License-Identifier: Apache-2.0
// Options of a new LUKS image, from those of a command line to those of blockdev-create.

import { BlockError } from '../../../base/index.js';
import { luksCreateMembers } from '../../../crypto/options.js';
import { validate } from '../../../schema/index.js';
import { PREALLOCATIONS } from './options.js';
import type { CreateMembers } from './options.js';

/** Throws for a value that is none of its option's. */
export function luksMembers(
  given: CreateMembers,
  { file, size }: { readonly file: string; readonly size: number },
): Readonly<Record<string, unknown>> {
  const { 'detached-header': detached, preallocation = 'off', ...members } = given;
  if (!PREALLOCATIONS.includes(String(preallocation))) {
    throw new BlockError('invalid-option', `invalid parameter value: ${String(preallocation)}`);
  }
  const place = detached === true ? { header: file } : { file, preallocation };
  return { ...validate(luksCreateMembers, members), ...place, size };
}
