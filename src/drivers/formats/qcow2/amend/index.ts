// SPDX-License-Identifier: Apache-2.0
// Amending an image: keyslots, version, width of refcounts, lazy refcounts, size, name of the data
// file.
//
// All refusals come first. Then, each durable before the next: keyslots, the newer version, the
// width, the data file, lazy refcounts, the size, and last the older version. A power cut between
// them or within one leaves the view as it was, and an image that is amended in part.

import { must } from '../../../../base/index.js';
import type { AmendContext, AmendOptions } from '../../../../block/index.js';
import type { Writer } from '../data/index.js';
import type { MetadataStore } from '../metadata/index.js';
import type { ImageKeyslots } from '../encryption/index.js';
import { expandZeroes, refuseZstdClusters } from './older-entries.js';
import { changeRefcountWidth } from './refcount-width.js';
import { AmendWork } from './work.js';
import { wishOf } from './wish.js';

export interface AmendedImage {
  readonly store: MetadataStore;
  readonly writer: Writer;
  /** Of an image encrypted with LUKS. */
  readonly keyslots: ImageKeyslots | null;
  /** Everything that was read before may be stale. */
  readonly changed: () => void;
}

/** No request runs meanwhile. Refused or cancelled, the view is as it was. */
export async function amendImage(
  { store, writer, changed, keyslots }: AmendedImage,
  options: AmendOptions,
  context: AmendContext,
): Promise<void> {
  const { image, flusher } = store;
  const { structures } = image;
  const wish = wishOf(image, options);
  await flusher.settle();
  if (wish.keyslots !== null) {
    await must(keyslots, 'keyslots of an encrypted image').amend(wish.keyslots, context);
  }
  if (wish.version === 2 && image.codec === 'zstd') await refuseZstdClusters(image);
  const parts = [wish.version, wish.refcountOrder].filter((part) => part !== null).length;
  const work = new AmendWork(context, Math.max(1, parts));
  if (wish.version === 3) {
    await structures.changeVersion(3);
    image.version = 3;
    work.partDone();
  }
  if (wish.refcountOrder !== null) {
    await changeRefcountWidth(store, wish.refcountOrder, work);
    changed();
    work.partDone();
  }
  if (wish.dataFile !== null || wish.dropsRaw) {
    await structures.changeDataFile({ name: wish.dataFile, dropsRaw: wish.dropsRaw });
  }
  if (wish.lazyRefcounts !== null) {
    await structures.patchHeader({ lazyRefcounts: wish.lazyRefcounts });
    await image.sync();
    image.lazyRefcounts = wish.lazyRefcounts;
    image.headerIsLazy = wish.lazyRefcounts;
  }
  if (wish.size !== null) await context.resize(wish.size);
  if (wish.version === 2) {
    await expandZeroes(store, writer, work);
    await flusher.settle();
    await structures.changeVersion(2);
    image.version = 2;
    image.codec = 'deflate';
    image.lazyRefcounts = false;
    image.headerIsLazy = false;
    changed();
    work.partDone();
  }
}
