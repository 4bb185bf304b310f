// SPDX-License-Identifier: Apache-2.0
// blockdev-create for LUKS: header area, then a payload as long as the disk.
//
// Order: the old header is wiped and flushed, the file gets its length, key material is written
// and flushed, the header comes last. A power cut before that leaves a file that is no LUKS image.

import { BlockError, MAX_OFFSET, must } from '../../../base/index.js';
import type { CreateContext, Node } from '../../../block/index.js';
import { passwordOf, writeRequest } from '../../../block/index.js';
import { deriveKey } from '../../../crypto/index.js';
import type { DeriveKey } from '../../../crypto/index.js';
import {
  encodeLuksHeader,
  formatLuks,
  headerAreaBytes,
  HEADER_BYTES,
  luksIterations,
  luksWish,
} from '../../../crypto/luks/index.js';
import type { FormattedLuks } from '../../../crypto/luks/index.js';
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
  if (holder.length > 0) {
    const head = Math.min(HEADER_BYTES, holder.length);
    await holder.write(writeRequest(0, new Uint8Array(head)));
    await holder.flush();
  }
  if (apart !== null) await apart.truncate(area, { exact: false, preallocation: 'off' });
  const length = (apart === null ? area : 0) + options.size;
  await file?.truncate(length, { exact: false, preallocation });
  const [first] = header.keyslots;
  await holder.write(writeRequest(first?.materialOffset ?? 0, material));
  await holder.flush();
  await holder.write(writeRequest(0, encodeLuksHeader(header)));
  await holder.flush();
}
