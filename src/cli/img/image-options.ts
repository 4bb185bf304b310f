// SPDX-License-Identifier: Apache-2.0
// --image-opts: an image given as `driver=qcow2,file.filename=x` instead of by its name.

import { blockdevOptions } from '../../api/index.js';
import { BlockError } from '../../base/index.js';
import { driverOptions } from '../../drivers/options-catalog.js';
import { parseKeyval, validate } from '../../schema/index.js';
import type { KeyvalTree } from '../../schema/index.js';

/** Options without a driver name a file whose format is probed. */
export type ImageOptions =
  | { readonly driver: string; readonly node: Readonly<Record<string, unknown>> }
  | { readonly driver?: undefined; readonly filename: string };

export function imageOptions(text: string): ImageOptions {
  if (!/^[^,]*=/.test(text)) {
    throw new BlockError(
      'device-not-found',
      `Cannot find device='${text}' nor node-name='${text}'`,
    );
  }
  const tree = withFileDriver(parseKeyval(text));
  if (typeof tree['driver'] !== 'string') return { filename: probedName(tree) };
  if (!Object.hasOwn(driverOptions, tree['driver'])) {
    throw new BlockError('invalid-option', `Unknown driver '${tree['driver']}'`);
  }
  const node = validate(blockdevOptions, tree, '', 'keyval') as Record<string, unknown>;
  return { driver: tree['driver'], node };
}

/** `file.filename` alone means the file driver. */
function withFileDriver(tree: KeyvalTree): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value !== 'object' || Array.isArray(value)) {
      result[key] = value;
      continue;
    }
    const nested = withFileDriver(value as KeyvalTree);
    const isStored = key === 'file' || key === 'data-file';
    const isFile = isStored && nested['driver'] === undefined;
    result[key] = isFile && 'filename' in nested ? { ...nested, driver: 'file' } : nested;
  }
  return result;
}

/** A name that says what is given, of an image whose format is found. */
function probedName(tree: Readonly<Record<string, unknown>>): string {
  const file = tree['file'];
  if (file === undefined) {
    throw new BlockError('invalid-option', 'Must specify either driver or file');
  }
  const isAlone = Object.keys(tree).length === 1 && typeof file === 'object';
  const { filename, driver, ...others } = isAlone ? (file as KeyvalTree) : {};
  if (typeof filename === 'string' && driver === 'file' && Object.keys(others).length === 0) {
    return filename;
  }
  return `json:${JSON.stringify(tree)}`;
}
