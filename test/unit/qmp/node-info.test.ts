// SPDX-License-Identifier: Apache-2.0
// query-named-block-nodes beside a graph that changes.
import { expect, it } from 'vitest';

import { createEngine } from '../../../src/engine/index.js';
import { MemoryHost } from '../../../src/host/index.js';
import type { FileStat } from '../../../src/host/index.js';
import { blockCoreCommands } from '../../../src/qmp/commands/block-core.js';
import { READ_ONLY } from '../../helpers/graph.js';

class SlowHost extends MemoryHost {
  asked: (() => void) | null = null;
  gate: Promise<void> = Promise.resolve();

  override async stat(path: string): Promise<FileStat | null> {
    this.asked?.();
    await this.gate;
    return super.stat(path);
  }
}

it('query-named-block-nodes leaves out a node that is closed while it looks', async () => {
  const host = new SlowHost();
  for (const name of ['a', 'b']) host.putFile(`/${name}`, new Uint8Array(512));
  const engine = await createEngine({ host });
  for (const name of ['a', 'b']) {
    const file = { driver: 'file', filename: `/${name}` };
    await engine.graph.open({ driver: 'raw', 'node-name': name, file });
  }
  const node = engine.graph.require('a');
  const job = await engine.graph.attach(node, 'job', READ_ONLY);
  await engine.graph.close(node);
  let go = (): void => undefined;
  host.gate = new Promise((resolve) => (go = resolve));
  const asked = new Promise<void>((resolve) => (host.asked = resolve));
  const answer = blockCoreCommands['query-named-block-nodes'](engine, {});
  await asked;
  await job.detach();
  go();
  const files = (await answer).map((info) => info.file);
  expect(files).toEqual(['/b', '/b']);
  await engine.close();
});
