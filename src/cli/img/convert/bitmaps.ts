// SPDX-License-Identifier: Apache-2.0
// `img convert --bitmaps`: the persistent bitmaps of the one source go to the target once its data
// is there. What stands in the way is found before anything is copied.

import { BlockError } from '../../../base/index.js';
import { addBitmap, bitmapsOf, keepsBitmaps, mergeBitmaps } from '../../../block/index.js';
import type { DirtyBitmap, Node } from '../../../block/index.js';
import { skipFilters } from '../../../block/copy/index.js';
import { CliError, report } from '../../program.js';
import type { Program } from '../../program.js';
import type { ConvertArguments } from './options.js';

type Mode = ConvertArguments['bitmaps'];

/** Refuses sources that have no bitmaps to give. */
export function requireSourceBitmaps(mode: Mode, sources: readonly Node[]): void {
  if (mode === 'left') return;
  const [source] = sources;
  if (source === undefined || sources.length > 1) {
    throw new CliError('Copying bitmaps only possible with single source');
  }
  if (!keepsBitmaps(skipFilters(source))) throw new CliError('Source lacks bitmap support');
  if (mode !== 'copied') return;
  const broken = persistentOf(source).find(({ inconsistent }) => inconsistent);
  if (broken === undefined) return;
  throw new CliError(
    `Cannot copy inconsistent bitmap '${broken.name ?? ''}'`,
    1,
    "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it\n",
  );
}

export function requireTargetBitmaps(mode: Mode, target: Node): void {
  if (mode === 'left' || keepsBitmaps(target)) return;
  throw new CliError(`Format driver '${target.driver.name}' does not support bitmaps`);
}

/** Into the bitmaps of the target, which stores them when it is closed. */
export function copyBitmaps(
  program: Program,
  mode: Mode,
  { source, target }: { readonly source: Node; readonly target: Node },
): void {
  if (mode === 'left') return;
  for (const bitmap of persistentOf(source).toReversed()) {
    const name = bitmap.name ?? '';
    if (bitmap.inconsistent) {
      report(program, `warning: Skipping inconsistent bitmap '${name}'`);
      continue;
    }
    const { granularity, enabled } = bitmap;
    try {
      const options = { name, granularity, disabled: !enabled, persistent: true };
      const copy = addBitmap(target, options);
      mergeBitmaps(copy, [bitmap]);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      throw new CliError(`Failed to create bitmap ${name}: ${error.message}`, 1, error);
    }
  }
}

function persistentOf(node: Node): DirtyBitmap[] {
  return bitmapsOf(skipFilters(node)).filter(({ persistent }) => persistent);
}
