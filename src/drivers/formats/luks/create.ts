// SPDX-License-Identifier: Apache-2.0
// blockdev-create for LUKS: header area, then a payload as long as the disk.
//
// Order: the old header is wiped and flushed, with what a second copy of it begins with (LUKS
// version 2 has one, by which the rest would be found again); the files get their lengths, key
// material and the end of the header are written, all of it is flushed; the header's first sector
// comes last. A power cut before that leaves a file that is no LUKS image.

import { BlockError, MAX_OFFSET, must } from '../../../base/index.js';
import type { CreateContext, Node } from '../../../block/index.js';
import { passwordOf, requireTwoNodes, writeRequest } from '../../../block/index.js';
import { deriveKey, SECTOR_BYTES } from '../../../crypto/index.js';
import type { DeriveKey } from '../../../crypto/index.js';
import {
  encodeLuksHeader,
  formatLuks,
  headerAreaBytes,
  luksIterations,
  luksWish,
} from '../../../crypto/luks/index.js';
import type { FormattedLuks } from '../../../crypto/luks/index.js';
import { eraseCopies2 } from '../../../crypto/luks2/index.js';
import { headerArea } from './area.js';
import type { LuksCreateOptions } from './options.js';

/** Throws naming the option that cannot be honoured, before the file is touched. */
export async function createLuks(
  context: CreateContext,
  options: LuksCreateOptions,
): Promise<void> {
  const wish = luksWish(options);
  const detached = options.header !== undefined;
  const area = headerAreaBytes(wish.spec);
  if (options.file === undefined && !detached) {
    throw new BlockError('invalid-option', "Parameter 'file' is missing");
  }
  if (options.size > MAX_OFFSET - area) {
    throw new BlockError('too-large', 'The requested file size is too large');
  }
  const password = passwordOf(context, options['key-secret']);
  try {
    for (const place of [options.file, options.header]) {
      if (place !== undefined) await context.foresee?.(place);
    }
    const { host, signal } = context;
    const derive: DeriveKey = (asked) => deriveKey(asked, signal);
    const fill = (buffer: Uint8Array): void => host.fillSecret(buffer);
    const iterations = await luksIterations(wish, derive, host);
    const made = await formatLuks(
      { ...wish, ...iterations, password, detached },
      { derive, fill },
    );
    made.masterKey.fill(0);
    const file = options.file === undefined ? null : await context.node(options.file);
    const header = detached ? await context.node(options.header) : null;
    requireTwoNodes({ file, header });
    await writeImage({ file, header }, made, { area, options });
  } finally {
    password.fill(0);
  }
}

/** `header`: what gets it in place of the file; one of them is there. */
interface Files {
  readonly file: Node | null;
  readonly header: Node | null;
}

async function writeImage(
  { file, header: apart }: Files,
  { header, material }: FormattedLuks,
  { area, options }: { readonly area: number; readonly options: LuksCreateOptions },
): Promise<void> {
  const holder = must(apart ?? file, 'a file for the header');
  // What would be metadata beforehand is there anyway.
  const wanted = options.preallocation ?? 'off';
  const preallocation = wanted === 'metadata' ? 'off' : wanted;
  const length = (apart === null ? area : 0) + options.size;
  if (file !== null && preallocation !== 'off' && length < file.length) throw shrinks(file);
  await wipe(holder);
  if (apart !== null) await apart.truncate(area, { exact: false, preallocation: 'off' });
  await file?.truncate(length, { exact: false, preallocation });
  const [first] = header.keyslots;
  const bytes = encodeLuksHeader(header);
  await holder.write(writeRequest(first?.materialOffset ?? 0, material));
  await holder.write(writeRequest(SECTOR_BYTES, bytes.subarray(SECTOR_BYTES)));
  await holder.flush();
  if (holder !== file) await file?.flush();
  await holder.write(writeRequest(0, bytes.subarray(0, SECTOR_BYTES)));
  await holder.flush();
}

function shrinks({ name }: Node): BlockError {
  const text = 'Cannot use preallocation for shrinking files';
  return new BlockError('invalid-option', text, { node: name });
}

/** Takes away, for good, what makes it an image of either version, or of anything. */
async function wipe(node: Node): Promise<void> {
  const { length } = node;
  if (length === 0) return;
  await node.write(writeRequest(0, new Uint8Array(Math.min(SECTOR_BYTES, length))));
  await node.flush();
  await eraseCopies2({ area: headerArea({ node }), length });
}
