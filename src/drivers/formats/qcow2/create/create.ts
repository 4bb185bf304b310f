// SPDX-License-Identifier: Apache-2.0
// blockdev-create for qcow2: an empty image, byte for byte as the reference lays it out.
//
// Order: old header wiped and flushed, the file cut and made long enough; tables, LUKS header and
// what of the header lies behind its first sector, flush; that sector, flush. A power cut before
// the last step leaves a file that is no qcow2 image.

import { BlockError } from '../../../../base/index.js';
import type { CreateContext, Node } from '../../../../block/index.js';
import {
  readRequest,
  RequestFlag,
  requireTwoNodes,
  writeRequest,
  zeroRequest,
} from '../../../../block/index.js';
import { SECTOR_SIZE } from '../layout.js';
import type { Qcow2CreateOptions } from '../options.js';
import { emptyImage } from './empty-image.js';
import { makeCryptHeader, writeCryptHeader } from './encryption.js';
import type { EmptyImage, Preallocation } from './empty-image.js';
import { layOut } from './placement.js';

/** Validated options of `blockdev-create`; throws naming the option that cannot be honoured. */
export async function createQcow2(
  context: CreateContext,
  options: Qcow2CreateOptions,
): Promise<void> {
  // Opening the file may empty it: not for an image that cannot be.
  const checked = emptyImage(options);
  const plain = layOut(checked);
  const { encryption } = checked;
  const crypt =
    encryption === null ? null : await makeCryptHeader(context, encryption, options);
  const file = await context.node(options.file);
  const data = checked.dataFile === null ? null : await context.node(options['data-file']);
  requireTwoNodes({ file, 'data-file': data });
  const image = data === null ? checked : { ...checked, dataFile: data.filename };
  const { header, tables, fileLength, cryptHeader } = data === null ? plain : layOut(image);
  if (file.length > 0) await wipe(file, Math.min(SECTOR_SIZE, file.length));
  const isOutside = image.preallocation === 'metadata' || data !== null;
  await makeRoom(file, fileLength, isOutside ? 'off' : image.preallocation);
  if (file.length < fileLength) {
    throw new BlockError('no-space', `The file is too small: ${fileLength} bytes are needed`);
  }
  // A block device or fixed-size node keeps its old bytes: no old header may be found meanwhile.
  await wipe(file, image.geometry.clusterSize);
  if (data !== null) await sizeDataFile(data, image);
  for (const { offset, bytes } of tables) await file.write(writeRequest(offset, bytes));
  if (crypt !== null && cryptHeader !== null) await writeCryptHeader(file, crypt, cryptHeader);
  const rest = header.subarray(SECTOR_SIZE);
  if (rest.length > 0) await file.write(writeRequest(SECTOR_SIZE, rest));
  await file.flush();
  await file.write(writeRequest(0, header.subarray(0, SECTOR_SIZE)));
  await file.flush();
  await requireKept(file, header);
}

/** A block device stays as long as it is, and so does what cannot be resized. */
async function makeRoom(
  file: Node,
  length: number,
  preallocation: Exclude<Preallocation, 'metadata'>,
): Promise<void> {
  try {
    await file.truncate(0, { exact: false });
  } catch (error) {
    if (error instanceof BlockError && error.kind === 'unsupported') return;
    throw error;
  }
  await file.truncate(length, { exact: false, preallocation });
}

/** There are nodes that store nothing. */
async function requireKept(file: Node, header: Uint8Array): Promise<void> {
  const kept = new Uint8Array(header.length);
  await file.read(readRequest(0, kept));
  if (Buffer.compare(kept, header) === 0) return;
  throw new BlockError('corrupt-image', 'Image is not in qcow2 format', { node: file.name });
}

/** What the file holds already stays: it may be the disk that a raw data file is to show. */
async function sizeDataFile(data: Node, { size, preallocation }: EmptyImage): Promise<void> {
  const mode = preallocation === 'metadata' ? 'off' : preallocation;
  const isShorter = data.length > size;
  await data.truncate(size, { exact: false, preallocation: isShorter ? 'off' : mode });
  if (data.length < size) {
    throw new BlockError('no-space', `The data file is too small: ${size} bytes are needed`);
  }
  await data.flush();
}

/** So many bytes from the start, for good. */
async function wipe(file: Node, length: number): Promise<void> {
  await file.writeZeroes(zeroRequest(0, length, RequestFlag.mayUnmap));
  await file.flush();
}
