// SPDX-License-Identifier: Apache-2.0
// Options act in order and nobody is greeted before the last of them has acted.
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { connect } from '../../src/client/index.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;

test('a client is greeted only when the options after --monitor have acted', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'blockwright-order-'));
  const path = join(folder, 'qmp.sock');
  const nodes = Array.from({ length: 30 }, (_unused, index) => [
    '--blockdev',
    `null-co,node-name=n${index},size=1048576`,
  ]).flat();
  const socket = `socket,id=c,path=${path},server=on,wait=off`;
  const monitor = ['--chardev', socket, '--monitor', 'chardev=c'];
  const daemon = spawn(process.execPath, [PROGRAM, 'storage-daemon', ...monitor, ...nodes]);
  try {
    const client = await connectSoon(path, daemon);
    const found = await client.execute('query-named-block-nodes', { flat: true });
    expect(found).toHaveLength(30);
    await client.close();
  } finally {
    daemon.kill('SIGKILL');
    await rm(folder, { recursive: true });
  }
});

/** Tries again until the socket is there; gives up when the daemon ends. */
async function connectSoon(
  path: string,
  daemon: ReturnType<typeof spawn>,
): ReturnType<typeof connect> {
  for (;;) {
    try {
      return await connect({ path });
    } catch (error) {
      if (daemon.exitCode !== null) throw error;
    }
  }
}
