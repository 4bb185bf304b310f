// SPDX-License-Identifier: Apache-2.0
// blockdev-create for LUKS: header area, then a payload as long as the disk.
//
// Order: the old header is wiped and flushed, the file gets its length, key material is written
// and flushed, the header comes last. A power cut before that leaves a file that is no LUKS image.

import { BlockError, MAX_OFFSET } from '../../../base/index.js';
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
  const area = headerAreaBytes(wish.spec);
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
      { ...wish, ...iterations, password, detached: false },
      { derive, fill },
    );
    made.masterKey.fill(0);
    const file = await context.node(options.file);
    await writeImage(file, made, { length: area + options.size, options });
  } finally {
    password.fill(0);
  }
}

async function writeImage(
  file: Node,
  { header, material }: FormattedLuks,
  { length, options }: { readonly length: number; readonly options: LuksCreateOptions },
): Promise<void> {
  const preallocation = options.preallocation ?? 'off';
  if (file.length > 0) {
    const head = Math.min(HEADER_BYTES, file.length);
    await file.write(writeRequest(0, new Uint8Array(head)));
    await file.flush();
  }
  await file.truncate(length, { exact: false, preallocation });
  const [first] = header.keyslots;
  await file.write(writeRequest(first?.materialOffset ?? 0, material));
  await file.flush();
  await file.write(writeRequest(0, encodeLuksHeader(header)));
  await file.flush();
}
