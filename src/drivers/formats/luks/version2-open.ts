// SPDX-License-Identifier: Apache-2.0
// Opening an image with a LUKS header of version 2, for its data alone: the header is read and
// never written, and keyslots are changed elsewhere.
//
// Only an image that is said to be `luks` gets here; probing finds version 1, as the reference
// does, and an image of version 2 is raw to it.

import { BlockError } from '../../../base/index.js';
import { passwordOf } from '../../../block/index.js';
import type { Child, DriverNode, Node, OpenContext } from '../../../block/index.js';
import { limitedDerive } from '../../../crypto/index.js';
import type { CipherSpec } from '../../../crypto/index.js';
import {
  limitedArgon2,
  ownKeyslots,
  specOf,
  unlockAny2,
} from '../../../crypto/luks2/index.js';
import type { Luks2Header } from '../../../crypto/luks2/index.js';
import { headerArea } from './area.js';
import type { LuksOptions } from './options.js';
import { InspectedLuks2, Luks2Node } from './version2-node.js';
import type { Luks2Parts } from './version2-node.js';

/** Throws kind `permission` where the secret opens no keyslot. */
export async function openVersion2(
  context: OpenContext,
  options: LuksOptions,
  place: Luks2Parts & { readonly holder: Child },
): Promise<DriverNode> {
  const { file, holder, header, openIfOther } = place;
  if (holder === file) requireAttached(file.node, header);
  requireSegment(file.node, header);
  if (context.inspectOnly) return new InspectedLuks2(file, header);
  const { filename } = file.node;
  const limitSeconds = options['key-derivation-limit'];
  const limit = { image: filename, limitSeconds, signal: context.signal };
  const tools = { derive: limitedDerive(limit), argon2: limitedArgon2(limit) };
  requireCipher(header);
  const password = passwordOf(context, options['key-secret']);
  try {
    const unlocked = await unlockAny2({ area: headerArea(holder), header }, password, tools);
    if (unlocked !== null) {
      const { masterKey } = unlocked;
      const key = { spec: specOfKey(header, masterKey), key: masterKey };
      return new Luks2Node({ file, header, openIfOther }, key);
    }
  } finally {
    password.fill(0);
  }
  throw new BlockError('permission', 'Invalid password, cannot unlock any keyslot');
}

/** What cannot be decrypted with any key of the header is told before one is derived. */
function requireCipher(header: Luks2Header): void {
  const sizes = new Set(ownKeyslots(header).map(({ keyBytes }) => keyBytes));
  let failure: unknown = null;
  for (const keyBytes of sizes) {
    try {
      dataSpec(header, keyBytes);
      return;
    } catch (error) {
      failure ??= error;
    }
  }
  if (failure !== null) throw failure;
}

/** Wipes the key where the segment can have none such. */
function specOfKey(header: Luks2Header, masterKey: Uint8Array): CipherSpec {
  try {
    return dataSpec(header, masterKey.length);
  } catch (error) {
    masterKey.fill(0);
    throw error;
  }
}

function dataSpec({ segment: { encryption } }: Luks2Header, keyBytes: number): CipherSpec {
  return specOf({ encryption, keyBytes, field: 'segments.0' });
}

/** A header that was made to lie apart from its payload is no image without it. */
function requireAttached({ filename }: Node, header: Luks2Header): void {
  if (header.segment.offset !== 0) return;
  const text = `'${filename}' is a LUKS header without a payload: open that with option 'header'`;
  throw new BlockError('invalid-option', text);
}

/** Where the file ends before what its header says of it, it is not the file that it was. */
export function requireSegment({ filename, length }: Node, { segment }: Luks2Header): void {
  const end = segment.offset + (segment.size ?? 0);
  if (end <= length) return;
  const text = `'${filename}' ends at ${length}, its segment at ${end}`;
  throw new BlockError('corrupt-image', `LUKS2 header: ${text}`);
}
