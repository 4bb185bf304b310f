// SPDX-License-Identifier: Apache-2.0
// A quorum over files of a simulated host, with what it reported and what the files hold.
import type { Backend, Driver, Graph, NodeOptions } from '../../src/block/index.js';
import { blkdebug } from '../../src/drivers/filters/blkdebug/index.js';
import { quorum } from '../../src/drivers/filters/quorum/index.js';
import { graphOn, makeFile, MemoryHost, READ_WRITE } from './graph.js';

export interface QuorumStage {
  readonly graph: Graph;
  readonly host: MemoryHost;
  readonly user: Backend;
  /** Event name and node name, in order. */
  readonly events: readonly string[];
  /** Bytes of each child's file. */
  contents(): Promise<Buffer[]>;
  close(): Promise<void>;
}

/** One child for each content; `below` makes its options from those of its file. */
export async function quorumStage(
  contents: readonly Uint8Array[],
  options: Readonly<Record<string, unknown>>,
  parts: { host?: MemoryHost; below?: (file: NodeOptions, index: number) => NodeOptions } = {},
): Promise<QuorumStage> {
  const host = parts.host ?? new MemoryHost();
  const events: string[] = [];
  const graph = graphOn(
    host,
    [quorum, blkdebug] as unknown as readonly Driver<never>[],
    (event, data) => void events.push(`${event} ${String(data['node-name'] ?? data['reference'])}`),
  );
  const children: NodeOptions[] = [];
  for (const [index, content] of contents.entries()) {
    const filename = `/c${index}`;
    await makeFile(host, filename, content);
    const file = { driver: 'file', 'node-name': `c${index}`, filename };
    children.push(parts.below?.(file, index) ?? file);
  }
  const node = await graph.open({ driver: 'quorum', 'node-name': 'q', children, ...options });
  const user = await graph.attach(node, 'guest', READ_WRITE);
  return {
    graph,
    host,
    user,
    events,
    async contents() {
      const all: Buffer[] = [];
      for (const index of contents.keys()) {
        const file = await host.openFile(`/c${index}`, { readOnly: true });
        const bytes = Buffer.alloc(file.size());
        await file.read(bytes, 0);
        await file.close();
        all.push(bytes);
      }
      return all;
    },
    async close() {
      await user.detach();
      await graph.closeAll();
    },
  };
}
