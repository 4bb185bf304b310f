// SPDX-License-Identifier: Apache-2.0
// Opening a LUKS image: the header is checked, then the secret takes the master key out of it.
//
// Opened only to look, no secret is needed, and the data cannot be read.

import { BlockError } from '../../../base/index.js';
import { passwordOf, readRequest } from '../../../block/index.js';
import type { Child, DriverNode, Node, OpenContext } from '../../../block/index.js';
import { limitedDerive } from '../../../crypto/index.js';
import {
  HEADER_BYTES,
  hasLuksMagic,
  isSameVolume,
  materialBytes,
  parseLuksHeader,
  unlockAny,
} from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { findLuks2Header, isSameVolume2 } from '../../../crypto/luks2/index.js';
import type { Luks2Header } from '../../../crypto/luks2/index.js';
import { headerArea } from './area.js';
import { KeyslotChanges } from './keyslot-changes.js';
import { InspectedLuks, LuksNode } from './node.js';
import type { OpenIfOther } from './node.js';
import type { LuksOptions } from './options.js';
import { openVersion2, requireSegment } from './version2-open.js';

/** Where a header says in which sector the payload begins; four bytes. */
const PAYLOAD_OFFSET = 104;

type Found =
  | { readonly version: 1; readonly header: LuksHeader }
  | { readonly version: 2; readonly header: Luks2Header };

interface Opening {
  readonly file: Child;
  /** Where the header lies: apart, or before the payload in the file. */
  readonly holder: Child;
  readonly found: Found;
}

export async function openLuks(context: OpenContext, options: LuksOptions): Promise<DriverNode> {
  const file = context.child('file');
  const holder = context.node.children.get('header') ?? file;
  const found = await findHeader(holder, holder !== file);
  return openFound(context, options, { file, holder, found });
}

async function findHeader(holder: Child, detached: boolean): Promise<Found> {
  const second = await findLuks2Header(headerArea(holder), holder.node.length);
  if (second !== null) return { version: 2, header: second };
  return { version: 1, header: await readLuksHeader(holder.node, detached) };
}

/** A file that comes in the place of another one. A header that lies apart stays what it was. */
function otherVolumes(present: Found): OpenIfOther {
  return async (context, options) => {
    if (context.node.children.has('header')) return null;
    const file = context.child('file');
    const found = await findHeader(file, false);
    if (isSame(found, present)) {
      if (found.version === 2) requireSegment(file.node, found.header);
      else requireWhole(file.node, found.header);
      return null;
    }
    return openFound(context, options as LuksOptions, { file, holder: file, found });
  };
}

function isSame(one: Found, other: Found): boolean {
  if (one.version === 1) return other.version === 1 && isSameVolume(one.header, other.header);
  return other.version === 2 && isSameVolume2(one.header, other.header);
}

async function openFound(
  context: OpenContext,
  options: LuksOptions,
  { file, holder, found }: Opening,
): Promise<DriverNode> {
  const openIfOther = otherVolumes(found);
  if (found.version === 2) {
    return openVersion2(context, options, { file, holder, header: found.header, openIfOther });
  }
  const { header } = found;
  if (holder === file) requireWhole(file.node, header);
  else requireMaterial(holder.node, header);
  if (context.inspectOnly) return new InspectedLuks(file, header);
  const limitSeconds = options['key-derivation-limit'];
  const limit = { image: file.node.filename, limitSeconds, signal: context.signal };
  const derive = limitedDerive(limit);
  const password = passwordOf(context, options['key-secret']);
  try {
    const unlocked = await unlockAny({ area: headerArea(holder), header }, password, derive);
    if (unlocked !== null) {
      const openedWith = options['key-secret'] ?? '';
      const keyslots = new KeyslotChanges(context, { holder, header, openedWith, limit });
      return new LuksNode({ file, keyslots, openIfOther }, unlocked.masterKey);
    }
  } finally {
    password.fill(0);
  }
  throw new BlockError('permission', 'Invalid password, cannot unlock any keyslot');
}

async function readLuksHeader(holder: Node, detached: boolean): Promise<LuksHeader> {
  const bytes = new Uint8Array(Math.min(HEADER_BYTES, holder.length));
  await holder.read(readRequest(0, bytes));
  if (!detached) requirePayload(holder, bytes);
  return parseLuksHeader(bytes, { detached });
}

/** Where the file ends before its payload, it is not the file that it was. */
function requireWhole({ filename, length }: Node, { payloadOffset }: LuksHeader): void {
  if (length >= payloadOffset) return;
  const text = `'${filename}' ends at ${length}, before its payload at ${payloadOffset}`;
  throw new BlockError('corrupt-image', `LUKS header: ${text}`);
}

/** So that no change of a keyslot makes the file longer, by whatever its header says. */
function requireMaterial({ filename, length }: Node, { spec, keyslots }: LuksHeader): void {
  for (const [slot, { materialOffset }] of keyslots.entries()) {
    const end = materialOffset + materialBytes(spec);
    if (end <= length) continue;
    const text = `'${filename}' ends at ${length}, the key material of keyslot ${slot} at ${end}`;
    throw new BlockError('corrupt-image', `LUKS header: ${text}`);
  }
}

/** A header that was made to lie apart from its payload is no image without it. */
function requirePayload({ filename }: Node, bytes: Uint8Array): void {
  if (!hasLuksMagic(bytes) || bytes.length < HEADER_BYTES) return;
  if (bytes.subarray(PAYLOAD_OFFSET, PAYLOAD_OFFSET + 4).some((byte) => byte !== 0)) return;
  const text = `'${filename}' is a LUKS header without a payload: open that with option 'header'`;
  throw new BlockError('invalid-option', text);
}
