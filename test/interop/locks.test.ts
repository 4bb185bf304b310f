// SPDX-License-Identifier: Apache-2.0
// The lock matrix with live QEMU programs, in both directions, conflict texts included.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { BlockError, Permission } from '../../src/base/index.js';
import {
  type Host,
  type HostFile,
  type LockRequest,
  nativeAddon,
  openNativeHost,
  openNodeHost,
} from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';

const { consistentRead, write, resize } = Permission;
const WRITER: LockRequest = { taken: consistentRead | write | resize, unshared: write | resize };
const READER: LockRequest = { taken: consistentRead, unshared: write | resize };
const INFO: LockRequest = { taken: 0, unshared: write | resize };
const UNSAFE: LockRequest = { taken: 0, unshared: 0 };

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');
const native = openNativeHost();
const portable = openNodeHost({ warn: () => undefined });

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-locks-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function makeImage(name: string, ...options: string[]): string {
  const path = join(folder, name);
  execFileSync(qemuImg ?? '', ['create', '-q', ...options, path, '1M']);
  return path;
}

/** A qemu-io that has the image open until stop(). */
class Holder {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(...options: string[]): Promise<Holder> {
    const child = spawn(qemuIo ?? '', options, { stdio: ['pipe', 'pipe', 'inherit'] });
    const holder = new Holder(child);
    await new Promise<void>((resolve, reject) => {
      let output = '';
      child.stdout?.on('data', (text: Buffer) => {
        output += text.toString();
        if (output.includes('1 MiB')) resolve();
      });
      child.once('exit', () => reject(new Error(`qemu-io ended: ${output}`)));
      child.stdin?.write('length\n');
    });
    return holder;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin?.end('quit\n');
    await ended;
  }
}

async function attempt(host: Host, path: string, request: LockRequest): Promise<string> {
  const readOnly = (request.taken & write) === 0;
  const file = await host.openFile(path, { readOnly });
  try {
    file.lock(request);
    return 'allowed';
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    const { kind, message, context } = error as BlockError;
    expect(kind).toBe('locked');
    expect(context.hint).toBe(`Is another process using the image [${path}]?`);
    return message;
  } finally {
    await file.close();
  }
}

const hosts: [string, Host | null][] = [
  ['native', native],
  ['node', portable],
];

describe.skipIf(qemuImg === null || qemuIo === null)('a live qemu-io', () => {
  for (const [name, host] of hosts) {
    describe.skipIf(host === null)(`seen by the ${name} host`, () => {
      const requests = [WRITER, READER, INFO, UNSAFE];
      const outcomes = async (path: string): Promise<string[]> => {
        const results: string[] = [];
        for (const request of requests) results.push(await attempt(host as Host, path, request));
        return results;
      };

      it('that writes a qcow2 image keeps writers and readers out', async () => {
        const path = makeImage(`writer-${name}.qcow2`, '-f', 'qcow2');
        const holder = await Holder.start(path);
        expect(await outcomes(path)).toEqual([
          'Failed to get "write" lock',
          'Failed to get shared "write" lock',
          'Failed to get shared "write" lock',
          'allowed',
        ]);
        await holder.stop();
        expect(await outcomes(path)).toEqual(Array(4).fill('allowed'));
      });

      it('that reads a qcow2 image keeps writers out only', async () => {
        const path = makeImage(`reader-${name}.qcow2`, '-f', 'qcow2');
        const holder = await Holder.start('-r', path);
        expect(await outcomes(path)).toEqual([
          'Failed to get "write" lock',
          'allowed',
          'allowed',
          'allowed',
        ]);
        await holder.stop();
      });

      it('that writes a raw image keeps writers and readers out', async () => {
        const path = makeImage(`writer-${name}.raw`, '-f', 'raw');
        const holder = await Holder.start('-f', 'raw', path);
        const [asWriter, asReader] = await outcomes(path);
        expect(asWriter).toMatch(/^Failed to get (shared )?"write" lock$/);
        expect(asReader).toBe('Failed to get shared "write" lock');
        await holder.stop();
      });

      it('that writes an overlay keeps writers off its backing file', async () => {
        const base = makeImage(`base-${name}.qcow2`, '-f', 'qcow2');
        const overlay = makeImage(`over-${name}.qcow2`, '-f', 'qcow2', '-b', base, '-F', 'qcow2');
        const holder = await Holder.start(overlay);
        expect(await outcomes(base)).toEqual([
          'Failed to get "write" lock',
          'allowed',
          'allowed',
          'allowed',
        ]);
        await holder.stop();
      });
    });
  }
});

function runTool(tool: string | null, ...options: string[]): { status: number; text: string } {
  const { status, stderr } = spawnSync(tool ?? '', options, { encoding: 'utf8' });
  return { status: status ?? -1, text: stderr };
}

function refusedFor(path: string, lock: string): RegExp {
  return new RegExp(
    `Failed to get ${lock} lock\nIs another process using the image \\[${path}\\]\\?`,
  );
}

describe.skipIf(native === null || qemuImg === null || qemuIo === null)('the native host', () => {
  let path = '';
  let target = '';
  let counter = 0;
  let file: HostFile | null = null;
  const holdAs = async (request: LockRequest): Promise<void> => {
    file = await (native as Host).openFile(path, { readOnly: (request.taken & write) === 0 });
    file.lock(request);
  };
  beforeEach(() => {
    path = makeImage(`ours-${counter++}.qcow2`, '-f', 'qcow2');
    target = join(folder, `target-${counter}.raw`);
  });
  afterEach(async () => {
    await file?.close();
    file = null;
  });

  it('as a writer keeps every tool of QEMU out', async () => {
    await holdAs(WRITER);
    const reading = refusedFor(path, 'shared "write"');
    expect(runTool(qemuImg, 'info', path)).toMatchObject({ status: 1 });
    expect(runTool(qemuImg, 'info', path).text).toMatch(reading);
    expect(runTool(qemuImg, 'check', path).text).toMatch(reading);
    expect(runTool(qemuImg, 'map', path).text).toMatch(reading);
    expect(runTool(qemuImg, 'convert', '-O', 'raw', path, target).text).toMatch(reading);
    const writing = refusedFor(path, '"write"');
    expect(runTool(qemuIo, '-c', 'write 0 512', path).text).toMatch(writing);
    expect(runTool(qemuImg, 'create', '-f', 'qcow2', path, '2M').text).toMatch(writing);
  });

  it('as a writer lets those in that ask for no lock', async () => {
    await holdAs(WRITER);
    expect(runTool(qemuImg, 'info', '-U', path)).toEqual({ status: 0, text: '' });
    expect(runTool(qemuImg, 'convert', '-U', '-O', 'raw', path, target).status).toBe(0);
    const overlay = ['-f', 'qcow2', '-b', path, '-F', 'qcow2', `${path}.overlay`];
    expect(runTool(qemuImg, 'create', '-q', ...overlay)).toEqual({ status: 0, text: '' });
  });

  it('as a reader keeps writing tools out and lets reading ones in', async () => {
    await holdAs(READER);
    for (const verb of ['info', 'check', 'map']) {
      expect(runTool(qemuImg, verb, path)).toEqual({ status: 0, text: '' });
    }
    const writing = refusedFor(path, '"write"');
    expect(runTool(qemuIo, '-c', 'write 0 512', path).text).toMatch(writing);
    expect(runTool(qemuImg, 'resize', path, '2M').text).toMatch(writing);
  });

  it('lets everybody in once it declares nothing, and again after close', async () => {
    await holdAs(WRITER);
    file?.lock(READER);
    expect(runTool(qemuImg, 'info', path).status).toBe(0);
    file?.lock(UNSAFE);
    expect(runTool(qemuImg, 'resize', path, '2M').status).toBe(0);
    file?.lock(WRITER);
    expect(runTool(qemuImg, 'info', path).status).toBe(1);
    await file?.close();
    expect(runTool(qemuImg, 'info', path).status).toBe(0);
  });

  it('refused a stronger lock keeps the weaker one, as others see it', async () => {
    const holder = await Holder.start('-r', path);
    await holdAs(READER);
    expect(() => file?.lock(WRITER)).toThrow('Failed to get "write" lock');
    await holder.stop();
    expect(runTool(qemuImg, 'info', path).status).toBe(0);
    expect(runTool(qemuImg, 'resize', path, '2M').status).toBe(1);
  });
});

describe.skipIf(native === null)('fewer locks than before', () => {
  it('are never refused, even while another program is about to be refused itself', async () => {
    const path = join(folder, 'fewer.raw');
    writeFileSync(path, Buffer.alloc(4096));
    const file = await (native as Host).openFile(path, { readOnly: false });
    file.lock(WRITER);
    const other = openSync(path, 'r');
    // What a program that wants to write lays down before it looks whether it may.
    for (let byte = 200; byte < 204; byte += 1) nativeAddon()?.lockShared(other, byte, 1);
    expect(() => file.lock({ taken: write, unshared: write })).not.toThrow();
    expect(() => file.lock(WRITER)).toThrow('Failed to get');
    closeSync(other);
    await file.close();
  });
});
