// SPDX-License-Identifier: Apache-2.0
// Long requests on encrypted images go in pieces, and other work gets its turn between them.
import { describe, expect, it } from 'vitest';

import type { Eventually } from '../../../src/base/index.js';
import { makeGraph } from '../../helpers/job-stage.js';
import { luksFile, LUKS_PASSWORD } from '../../helpers/luks.js';
import { createOn } from '../../helpers/qcow2-create.js';
import { MemoryHost } from '../../../src/host/index.js';

const MIB = 2 ** 20;
const SIZE = 4 * MIB;
const KEY = { 'key-secret': LUKS_PASSWORD };

async function turnsDuring(begun: Eventually<void>): Promise<number> {
  const work = Promise.resolve(begun);
  let turns = 0;
  let ended = false;
  void work.then(() => {
    ended = true;
  });
  while (!ended) {
    await new Promise((resolve) => void setImmediate(resolve));
    turns += 1;
  }
  await work;
  return turns;
}

describe.each(['luks', 'qcow2'])('requests of 4 MiB on an encrypted image: %s', (driver) => {
  it('give others a turn at each MiB', async () => {
    const host = new MemoryHost();
    if (driver === 'luks') host.putFile('image', await luksFile(SIZE));
    else await createOn(host, 'image', { size: SIZE, encrypt: { format: 'qcow', ...KEY } });
    const graph = makeGraph(host);
    const key = driver === 'luks' ? KEY : { encrypt: { format: 'aes', ...KEY } };
    const file = { driver: 'file', filename: 'image' };
    const node = await graph.open({ driver, ...key, file });
    const user = await graph.attach(node, 'test', { taken: 3, shared: 15 });
    const bytes = Buffer.alloc(SIZE, 'what a guest writes, which is no power of two');
    for (let round = 0; round < 2; round += 1) {
      expect(await turnsDuring(user.write(0, bytes))).toBeGreaterThanOrEqual(4);
    }
    const got = new Uint8Array(SIZE);
    expect(await turnsDuring(user.read(0, got))).toBeGreaterThanOrEqual(4);
    expect(Buffer.compare(got, bytes)).toBe(0);
    await user.detach();
    await graph.closeAll();
  });
});
