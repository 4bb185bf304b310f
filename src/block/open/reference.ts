// SPDX-License-Identifier: Apache-2.0
// How an image is named where it is to be opened: by options, or by a name that stands for some.

import { BlockError } from '../../base/index.js';
import type { BlockGraph } from '../graph.js';
import { parseFilename } from './filename.js';
import { protocolOf } from './protocol-of.js';

type Options = Readonly<Record<string, unknown>>;

/** An image by name or by options; without a format (or `driver`) it is probed. */
export type ImageReference =
  | { readonly path: string; readonly format: string | null }
  | { readonly options: Options; readonly format: string | null };

export async function optionsOf(graph: BlockGraph, reference: ImageReference): Promise<Options> {
  return 'options' in reference ? reference.options : optionsOfName(graph, reference.path);
}

/** The options that a name stands for, without a `driver` where the format is to be found. */
export async function optionsOfName(graph: BlockGraph, path: string): Promise<Options> {
  const parsed = parseFilename(path);
  if (parsed.kind === 'path') {
    return { driver: await protocolOf(graph.host, parsed.path), filename: parsed.path };
  }
  const { driver } = parsed.options;
  if (driver === 'nbd' && !graph.registry.has('nbd')) {
    throw new BlockError('unsupported', "Protocol 'nbd' is not supported", { path });
  }
  return parsed.options;
}
