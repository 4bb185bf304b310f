// SPDX-License-Identifier: Apache-2.0
// Hostile clients of a daemon that is a process of its own: they cost it bounded memory, other
// clients are served meanwhile, and what was refused leaves no node, file or lock behind.
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QmpError } from '../../src/client/index.js';
import { connectSocket } from '../../src/host/index.js';
import { BAD_INPUT_LIMITS } from '../helpers/measured-run.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import type { ProgramDaemon } from '../helpers/program-daemon.js';

const HELLO = '{"execute":"qmp_capabilities"}';
const HELLO_OOB = '{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}';
const QUIT = '{"execute":"quit"}';
const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const MIB = 2 ** 20;

let directory: string;
let daemon: ProgramDaemon;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'hostile-clients-'));
  writeFileSync(join(directory, 'disk.raw'), '');
  truncateSync(join(directory, 'disk.raw'), 64 * MIB);
  daemon = await startProgramDaemon(directory);
});
afterAll(async () => {
  await daemon.end('SIGTERM');
  rmSync(directory, { recursive: true, force: true });
});

async function raw(): Promise<Socket> {
  const socket = await connectSocket({ type: 'unix', path: daemon.path });
  socket.on('error', () => undefined);
  return socket;
}

/** Writes all of `text`, waiting for room; gives up when the daemon closes. */
async function pour(socket: Socket, text: string | Buffer): Promise<void> {
  if (socket.write(text)) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      socket.off('drain', done).off('close', done);
      resolve();
    };
    socket.on('drain', done).on('close', done);
  });
}

async function expectServed(): Promise<void> {
  expect(await daemon.client.execute('query-jobs')).toEqual([]);
  expect(daemon.complaint()).not.toMatch(/internal error|^\s+at /m);
  expect(daemon.residentMiB()).toBeLessThan(BAD_INPUT_LIMITS.residentMiB);
}

const HOSTILE: Readonly<Record<string, string | Buffer>> = {
  'bytes that are no JSON': Buffer.from(Array.from({ length: 65_536 }, (_, i) => (i * 73) & 255)),
  'a million opening brackets': '['.repeat(MIB),
  'a million nested objects': '{"a":'.repeat(MIB / 4),
  'half a message': '{"execute": "query-jobs", "argum',
  'closing brackets only': '}'.repeat(65_536),
  'an unknown member': `${HELLO}{"execute":"query-jobs","x":1}`,
  'a number of ten thousand digits': `${HELLO}{"execute":"query-jobs","id":${'9'.repeat(10_000)}}`,
  'a name with a zero byte': `${HELLO}{"execute":"query\\u0000jobs"}`,
  'a flood of urgent requests': HELLO_OOB + '{"exec-oob":"query-jobs"}'.repeat(20_000),
  'a flood of broken urgent requests': HELLO_OOB + '{"exec-oob":[],"id":{}}'.repeat(20_000),
  'an id of a megabyte': `${HELLO}{"execute":"query-jobs","id":"${'i'.repeat(MIB)}"}`,
  'an id of a thousand levels':
    `${HELLO}{"execute":"query-jobs","id":${'['.repeat(1000)}${']'.repeat(1000)}}`,
  'values of a thousand levels for a property':
    `${HELLO}{"execute":"qom-set","arguments":{"path":"/","property":"type","value":` +
    `${'{"a":'.repeat(1000)}1${'}'.repeat(1000)}}}`,
  'lone surrogates': `${HELLO}{"execute":"\\ud800","id":"\\udfff"}`,
};

describe('a daemon and hostile clients', () => {
  for (const [name, bytes] of Object.entries(HOSTILE)) {
    it(`outlives ${name}, cut off in the middle`, async () => {
      const socket = await raw();
      await pour(socket, bytes);
      await daemon.client.execute('query-jobs');
      socket.destroy();
      await expectServed();
    });
  }

  it('bounds a string without an end', async () => {
    const socket = await raw();
    socket.resume();
    await pour(socket, `${HELLO}{"execute":"`);
    const piece = 'a'.repeat(MIB);
    for (let sent = 0; sent < 160 && !socket.destroyed; sent += 1) await pour(socket, piece);
    socket.destroy();
    await expectServed();
  });

  it('serves a good client beside a hundred silent ones', async () => {
    const silent = await Promise.all(Array.from({ length: 100 }, raw));
    await expectServed();
    for (const socket of silent) socket.destroy();
    await expectServed();
  });

  it('stops reading from a client that never reads its answers', async () => {
    const socket = await raw();
    socket.pause();
    const commands = '{"execute":"query-qmp-schema"}'.repeat(2000);
    socket.write(HELLO + commands);
    for (let turn = 0; turn < 50; turn += 1) await daemon.client.execute('query-jobs');
    await expectServed();
    socket.destroy();
    await expectServed();
  });

  it('adds only so many character devices, and only so much memory for them', async () => {
    const add = (id: string, size: number): Promise<unknown> => {
      const backend = { type: 'ringbuf', data: { size } } as const;
      return daemon.client.execute('chardev-add', { id, backend });
    };
    await add('big', 32 * MIB);
    await expect(add('bigger', 64 * MIB)).rejects.toThrow('too large');
    await daemon.client.execute('ringbuf-write', { device: 'big', data: 'x'.repeat(MIB) });
    let added = 0;
    const refused = await (async () => {
      for (;;) {
        try {
          await add(`small-${added}`, 1);
        } catch (error) {
          return error;
        }
        added += 1;
      }
    })();
    expect(String(refused)).toContain('which is the limit');
    expect(added).toBeLessThan(1024);
    const ids = ['big', ...Array.from({ length: added }, (_, index) => `small-${index}`)];
    for (const id of ids) await daemon.client.execute('chardev-remove', { id });
    await expectServed();
  });

  it('closes those who speak too early to a socket without a monitor', async () => {
    const path = join(directory, 'nobody.sock');
    const addr = { type: 'unix', data: { path } } as const;
    const backend = { type: 'socket', data: { addr, server: true, wait: false } } as const;
    await daemon.client.execute('chardev-add', { id: 'nobody', backend });
    const sockets = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const socket = await connectSocket({ type: 'unix', path });
        socket.on('error', () => undefined).resume();
        socket.write('x'.repeat(MIB));
        return socket;
      }),
    );
    await expectServed();
    await daemon.client.execute('chardev-remove', { id: 'nobody' });
    // Not `once`: who is still writing meets an error first, which is as good.
    const closed = sockets.map((socket) =>
      socket.closed ? undefined : new Promise((resolve) => void socket.on('close', resolve)),
    );
    await Promise.all(closed);
    await expectServed();
  });

  it('leaves nothing of a node whose last option is wrong', async () => {
    const path = join(directory, 'disk.raw');
    const files = daemon.openFiles();
    const file = { driver: 'file', filename: path, 'node-name': 'inner' };
    for (const options of [
      { driver: 'qcow2', 'node-name': 'outer', file },
      { driver: 'raw', 'node-name': 'outer', file, offset: 2 ** 30 },
      { driver: 'raw', 'node-name': 'outer', file, size: 2 ** 50 },
      { driver: 'raw', 'node-name': 'a name with spaces', file },
      { driver: 'raw', 'node-name': 'inner', file },
      { driver: 'qcow2', 'node-name': 'outer', file: { driver: 'raw', file }, backing: 'nobody' },
    ]) {
      const added = daemon.client.executeAny('blockdev-add', options);
      await expect(added, JSON.stringify(options)).rejects.toThrow(QmpError);
      expect(await daemon.client.execute('query-named-block-nodes')).toEqual([]);
      expect(daemon.openFiles()).toEqual(files);
    }
  });

  it('answers all that was said on standard input before its end, refusals too', () => {
    const commands = [HELLO, '{"execute":"blockdev-del","arguments":{"node-name":"x"}}', QUIT];
    const said = execFileSync(
      process.execPath,
      [MAIN, 'storage-daemon', '--chardev', 'stdio,id=c', '--monitor', 'chardev=c'],
      { input: commands.join(''), encoding: 'utf8', timeout: BAD_INPUT_LIMITS.hangMs },
    );
    const answers = said.trimEnd().split('\r\n').map((line) => line.slice(2, 6));
    expect(answers).toEqual(['QMP"', 'retu', 'erro', 'retu']);
  });

  it('finishes the command of a client that is gone', async () => {
    const socket = await raw();
    const path = join(directory, 'disk.raw');
    const file = { driver: 'file', filename: path, 'node-name': 'gone' };
    socket.end(`${HELLO}${JSON.stringify({ execute: 'blockdev-add', arguments: file })}`);
    await once(socket.resume(), 'close');
    const [node] = await daemon.client.execute('query-named-block-nodes');
    expect(node?.['node-name']).toBe('gone');
    await daemon.client.execute('blockdev-del', { 'node-name': 'gone' });
    expect(daemon.openFiles()).not.toContain(path);
  });
});
