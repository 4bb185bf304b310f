// SPDX-License-Identifier: Apache-2.0
// The driver of a file that is named by its path alone: block devices have their own.

import type { BlockGraph } from '../graph.js';

/** What a path that cannot be looked at belongs to is for opening it to tell. */
export async function protocolOf(graph: BlockGraph, path: unknown): Promise<string> {
  if (typeof path !== 'string' || !path.startsWith('/dev/')) return 'file';
  const found = await graph.host.stat(path).catch(() => null);
  const isDevice = found?.kind === 'block-device' && graph.registry.has('host_device');
  return isDevice ? 'host_device' : 'file';
}
