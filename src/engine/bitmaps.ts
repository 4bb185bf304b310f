// SPDX-License-Identifier: Apache-2.0
// What users do with dirty bitmaps, by the names of nodes and bitmaps: commands and transaction
// actions alike.

import { BlockError } from '../base/index.js';
import {
  addBitmap,
  mergeBitmaps,
  requireBitmap,
  requireBitmapName,
  type AddBitmapOptions,
  type DirtyBitmap,
  type Node,
} from '../block/index.js';
import type { Engine } from './engine.js';

export interface BitmapName {
  readonly node: string;
  readonly name: string;
}

export interface NamedBitmap {
  readonly node: Node;
  readonly bitmap: DirtyBitmap;
}

/** Throws kind `not-found` naming the node or the bitmap. */
export function findNamedBitmap(engine: Engine, { node: nodeName, name }: BitmapName): NamedBitmap {
  const node = engine.graph.find(nodeName);
  if (node === null) throw new BlockError('not-found', `Node '${nodeName}' not found`);
  return { node, bitmap: requireBitmap(node, name) };
}

export interface NewBitmap extends AddBitmapOptions {
  readonly node: string;
}

export function addNamedBitmap(engine: Engine, request: NewBitmap): NamedBitmap {
  const { node: nodeName, ...options } = request;
  requireBitmapName(options.name);
  const node = engine.jobs.node(nodeName);
  const bitmap = addBitmap(node, options);
  return { node, bitmap };
}

export interface BitmapMerge {
  readonly node: string;
  readonly target: string;
  /** Names of bitmaps of the same node, or of any. */
  readonly bitmaps: readonly (string | BitmapName)[];
}

/** Merges into a bitmap, all or nothing; gives it. */
export function mergeNamedBitmaps(engine: Engine, request: BitmapMerge): DirtyBitmap {
  const { node, target, bitmaps } = request;
  const { bitmap } = findNamedBitmap(engine, { node, name: target });
  mergeBitmaps(bitmap, sourcesOf(engine, node, bitmaps));
  return bitmap;
}

function* sourcesOf(
  engine: Engine,
  node: string,
  bitmaps: BitmapMerge['bitmaps'],
): Generator<DirtyBitmap> {
  for (const source of bitmaps) {
    const named = typeof source === 'string' ? { node, name: source } : source;
    yield findNamedBitmap(engine, named).bitmap;
  }
}

/** The merge of today, or the first one, which had one source of the same node. */
export interface LooseBitmapMerge {
  readonly node: string;
  readonly target?: string;
  readonly bitmaps?: BitmapMerge['bitmaps'];
  readonly dst_name?: string;
  readonly src_name?: string;
}

export function strictMerge(request: LooseBitmapMerge): BitmapMerge {
  const { node, dst_name: oldTarget, src_name: oldSource } = request;
  if (oldTarget === undefined && oldSource === undefined) {
    const target = given(request.target, 'target');
    return { node, target, bitmaps: given(request.bitmaps, 'bitmaps') };
  }
  for (const name of ['target', 'bitmaps'] as const) {
    if (request[name] === undefined) continue;
    throw new BlockError('invalid-option', `Parameter '${name}' is unexpected`);
  }
  return {
    node,
    target: given(oldTarget, 'dst_name'),
    bitmaps: [given(oldSource, 'src_name')],
  };
}

function given<T>(value: T | undefined, name: string): T {
  if (value !== undefined) return value;
  throw new BlockError('invalid-option', `Parameter '${name}' is missing`);
}
