// SPDX-License-Identifier: Apache-2.0
// Opening a LUKS image: the header is checked, then the secret takes the master key out of it.
//
// Opened only to look, no secret is needed, and the data cannot be read.

import { BlockError } from '../../../base/index.js';
import { passwordOf, readRequest } from '../../../block/index.js';
import type { DriverNode, Node, OpenContext } from '../../../block/index.js';
import { limitedDerive } from '../../../crypto/index.js';
import { HEADER_BYTES, parseLuksHeader, unlockAny } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { nodeArea } from './area.js';
import { KeyslotChanges } from './keyslot-changes.js';
import { InspectedLuks, LuksNode } from './node.js';
import type { LuksOptions } from './options.js';
import { openVersion2, version2Header } from './version2-open.js';

export async function openLuks(context: OpenContext, options: LuksOptions): Promise<DriverNode> {
  const file = context.child('file');
  const second = await version2Header(file);
  if (second !== null) {
    return openVersion2(context, options, { file, holder: file, header: second });
  }
  const header = await readLuksHeader(file.node);
  if (context.inspectOnly) return new InspectedLuks(file, header);
  const limitSeconds = options['key-derivation-limit'];
  const limit = { image: file.node.filename, limitSeconds, signal: context.signal };
  const derive = limitedDerive(limit);
  const password = passwordOf(context, options['key-secret']);
  try {
    const unlocked = await unlockAny({ area: nodeArea(file), header }, password, derive);
    if (unlocked !== null) {
      const openedWith = options['key-secret'] ?? '';
      const keyslots = new KeyslotChanges(context, { file, header, openedWith, limit });
      return new LuksNode(file, keyslots, unlocked.masterKey);
    }
  } finally {
    password.fill(0);
  }
  throw new BlockError('permission', 'Invalid password, cannot unlock any keyslot');
}

async function readLuksHeader(file: Node): Promise<LuksHeader> {
  const bytes = new Uint8Array(Math.min(HEADER_BYTES, file.length));
  await file.read(readRequest(0, bytes));
  return parseLuksHeader(bytes, { detached: false });
}
