// SPDX-License-Identifier: Apache-2.0
// The one write of the header that switches an image to other tables or another size, and the way
// back where it fails: memory goes on with the old ones then, so the header must name them, too.
//
// Order: header → sync; where either fails, the old fields → sync. Where that fails as well it is
// not known which header will be found, and nothing is written to the image before the way back
// was gone: until then both headers name what is on stable storage.

import { BlockError } from '../../../../base/index.js';
import type { HeaderPatch } from './contracts.js';
import type { Qcow2Image } from './image.js';

/** What the fields name must be on stable storage. Rejects with the old ones in force. */
export async function switchHeader(image: Qcow2Image, patch: HeaderPatch): Promise<void> {
  const { fields } = image.structures.header;
  const old: HeaderPatch = {
    size: fields.size,
    l1Offset: fields.l1TableOffset,
    l1Entries: fields.l1Size,
    refcountTableOffset: fields.refcountTableOffset,
    refcountTableClusters: fields.refcountTableClusters,
    refcountOrder: fields.refcountOrder,
    nbSnapshots: fields.nbSnapshots,
    snapshotsOffset: fields.snapshotsOffset,
  };
  try {
    await image.structures.patchHeader(patch);
    await image.sync();
  } catch (error) {
    await goBack(image, old);
    throw error;
  }
}

async function goBack(image: Qcow2Image, old: HeaderPatch): Promise<void> {
  const wayBack = async (): Promise<void> => {
    await image.structures.patchHeader(old);
    await image.sync();
  };
  try {
    await wayBack();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    image.doubt.raise(wayBack);
  }
}
