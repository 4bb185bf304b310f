// SPDX-License-Identifier: Apache-2.0
// Socket devices whose other side is slow, absent or gone.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHARDEV_LIMITS, ManualClock } from '../../../src/base/index.js';
import { ChardevRegistry } from '../../../src/engine/chardev/index.js';

const never = new Promise<void>(() => undefined);

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'chardev-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function socketAt(path: string, options: object): Parameters<ChardevRegistry['add']>[1] {
  const addr = { type: 'unix', data: { path } } as const;
  return { type: 'socket', data: { addr, ...options } };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('a device', () => {
  it.each([
    ['', 'is empty'],
    ['a\0b', 'zero byte'],
    ['x'.repeat(108), 'too long'],
  ])('at the path %j is refused as a mistake, listening and connecting', async (path, why) => {
    const registry = new ChardevRegistry(new ManualClock(), never);
    for (const server of [true, false]) {
      await expect(registry.add('c', socketAt(path, { server }))).rejects.toThrow(why);
    }
    expect(registry.list()).toEqual([]);
  });

  it('that is a file is never a pipe, which would be waited for without an end', async () => {
    const registry = new ChardevRegistry(new ManualClock(), never);
    const pipe = join(directory, 'fifo');
    execFileSync('mkfifo', [pipe]);
    const devices = [{ out: pipe }, { in: pipe, out: '/dev/null' }, { out: 'a\0b' }] as const;
    for (const data of devices) {
      const adding = registry.add('c', { type: 'file', data });
      await expect(adding).rejects.toThrow(/is a pipe|zero byte/);
    }
    expect(registry.list()).toEqual([]);
  });
});

describe('a device on standard input and output', () => {
  it('leaves them to the next one', async () => {
    const registry = new ChardevRegistry(new ManualClock(), never);
    for (const id of ['first', 'second']) {
      await registry.add(id, { type: 'stdio', data: {} });
      await registry.remove(id);
    }
    expect([process.stdin.destroyed, process.stdout.destroyed]).toEqual([false, false]);
  });

  it('is refused in the background', async () => {
    const registry = new ChardevRegistry(new ManualClock(), never);
    registry.giveUpStdio();
    await expect(registry.add('io', { type: 'stdio', data: {} })).rejects.toThrow('-daemonize');
  });
});

describe('a socket device', () => {
  it('removed while it connects again is gone, and the failure is nobody’s', async () => {
    const clock = new ManualClock();
    const registry = new ChardevRegistry(clock, never);
    const path = join(directory, 'nobody.sock');
    await registry.add('c', socketAt(path, { server: false, reconnect: 1 }));
    clock.advance(1000);
    // The attempt has begun and has not failed yet: an unhandled rejection would fail this test.
    await registry.remove('c');
    await turn();
    await turn();
    clock.advance(10_000);
    await turn();
    expect(registry.list()).toEqual([]);
  });

  it('forgets clients that left before anybody spoke to them', async () => {
    const registry = new ChardevRegistry(new ManualClock(), never);
    const addr = { type: 'inet', data: { host: '127.0.0.1', port: '0' } } as const;
    await registry.add('s', { type: 'socket', data: { addr, server: true, wait: false } });
    const port = Number(/:(\d+),/.exec(registry.list()[0]?.filename ?? '')?.[1]);
    const place = { host: '127.0.0.1', port };
    for (let index = 0; index < CHARDEV_LIMITS.waitingClients + 4; index += 1) {
      const early = connect(place);
      await once(early, 'connect');
      early.resetAndDestroy();
      await once(early, 'close');
    }
    const late = connect(place);
    await once(late, 'connect');
    for (let index = 0; index < 10; index += 1) await turn();
    const served: unknown[] = [];
    registry.attach('s', ({ input }) => served.push(input));
    expect(served).toHaveLength(1);
    late.destroy();
    await registry.close();
  });

  it('that waits, for a client or for an answer, is given up when the program ends', async () => {
    // Listens, and never accepts: a few connections fill its queue, the next ones hang.
    const script =
      'const s = require("net").createServer().listen(0, "127.0.0.1", 1, () => {' +
      'require("fs").writeSync(1, String(s.address().port));' +
      'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); });';
    const deaf = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const fillers: Socket[] = [];
    try {
      const [said] = (await once(deaf.stdout, 'data')) as [Buffer];
      const port = Number(said.toString());
      for (let index = 0; index < 4; index += 1) {
        fillers.push(connect({ port, host: '127.0.0.1' }).on('error', () => undefined));
      }
      await Promise.all(fillers.slice(0, 2).map((filler) => once(filler, 'connect')));
      let quit = (): void => undefined;
      const quitting = new Promise<void>((resolve) => (quit = resolve));
      const registry = new ChardevRegistry(new ManualClock(), quitting);
      const addr = { type: 'inet', data: { host: '127.0.0.1', port: String(port) } } as const;
      const adding = [
        registry.add('c', { type: 'socket', data: { addr, server: false } }),
        registry.add('s', socketAt(join(directory, 'w.sock'), { server: true, wait: true })),
      ];
      await turn();
      quit();
      await Promise.all(adding);
      await registry.close();
    } finally {
      for (const filler of fillers) filler.destroy();
      deaf.kill('SIGKILL');
    }
  });
});
