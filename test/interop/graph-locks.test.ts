// SPDX-License-Identifier: Apache-2.0
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Driver, Graph } from '../../src/block/index.js';
import { qcow2Driver } from '../../src/drivers/formats/qcow2/index.js';
import { nativeAddon, openDefaultHost } from '../../src/host/index.js';
import { errorOf, graphOn, READ_ONLY, READ_WRITE } from '../helpers/graph.js';
import { peer } from '../helpers/peers.js';

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');
const ready = qemuImg !== null && qemuIo !== null && nativeAddon() !== null;

describe.skipIf(!ready)('an image in use, beside the real programs', () => {
  let folder: string;
  let graph: Graph;
  let overlay: string;
  let base: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'graph-locks-'));
    overlay = join(folder, 'overlay.qcow2');
    base = join(folder, 'base.qcow2');
    run(qemuImg, ['create', '-q', '-f', 'qcow2', base, '1M']);
    run(qemuImg, ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', overlay]);
    graph = graphOn(openDefaultHost(), [qcow2Driver as unknown as Driver<never>]);
  });

  afterEach(async () => {
    await graph.closeAll();
    rmSync(folder, { recursive: true });
  });

  function run(program: string | null, args: readonly string[]): void {
    execFileSync(program ?? '', args, { stdio: 'pipe' });
  }

  function refusal(program: string | null, args: readonly string[]): string {
    const { status, stderr } = spawnSync(program ?? '', args, { encoding: 'utf8' });
    return status === 0 ? '' : stderr;
  }

  const write = (path: string): string[] => ['-f', 'qcow2', '-c', 'write 0 512', path];

  it('a reopen changes who else may use the image, without a moment in between', async () => {
    const file = { driver: 'file', filename: overlay };
    const options = { driver: 'qcow2', 'node-name': 'top', file, backing: null };
    await graph.open(options);
    expect(refusal(qemuImg, ['info', overlay])).toContain('Failed to get shared "write" lock');
    await graph.reopen([{ ...options, 'read-only': true }]);
    expect(refusal(qemuImg, ['info', overlay])).toBe('');
    expect(refusal(qemuIo, write(overlay))).toContain('lock');
    const conflict = { ...options, 'detect-zeroes': 'unmap' };
    expect((await errorOf(() => graph.reopen([conflict]))).message).toContain('detect-zeroes');
    await graph.reopen([options]);
    expect(refusal(qemuImg, ['info', overlay])).toContain('Failed to get shared "write" lock');
    await graph.closeAll();
    expect(refusal(qemuIo, write(overlay))).toBe('');
    expect(refusal(qemuImg, ['check', overlay])).toBe('');
  });

  it('their reader keeps a reopened node read-only, which goes on working', async () => {
    const file = { driver: 'file', filename: base };
    const options = { driver: 'qcow2', 'node-name': 'base', file };
    await graph.open({ ...options, 'read-only': true });
    const reader = spawn(qemuIo ?? '', ['-r', '-f', 'qcow2', base], { stdio: 'pipe' });
    try {
      reader.stdin.write('read 0 512\n');
      await once(reader.stdout, 'data');
      const refused = await errorOf(() => graph.reopen([options]));
      expect(refused.message).toBe('Failed to get "write" lock');
      const node = graph.require('base');
      expect(node.readOnly).toBe(true);
      expect((await node.check('none')).corruptions).toBe(0);
    } finally {
      reader.stdin.end('quit\n');
      await once(reader, 'exit');
    }
    await graph.reopen([options]);
    expect(graph.require('base').readOnly).toBe(false);
  });

  it('our writer keeps their readers out, and their writers from its base', async () => {
    const node = await graph.openImage(overlay, 'qcow2', false);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    expect(refusal(qemuImg, ['info', overlay])).toContain('Failed to get shared "write" lock');
    expect(refusal(qemuImg, ['info', '-U', overlay])).toBe('');
    expect(refusal(qemuImg, ['info', base])).toBe('');
    expect(refusal(qemuIo, write(base))).toContain('Failed to get "write" lock');
    await user.detach();
    await graph.close(node);
    expect(refusal(qemuImg, ['check', overlay])).toBe('');
    expect(refusal(qemuIo, write(base))).toBe('');
  });

  it('our reader lets their readers in and keeps their writers out', async () => {
    const node = await graph.openImage(overlay, 'qcow2', true);
    const user = await graph.attach(node, 'reader', READ_ONLY);
    expect(refusal(qemuImg, ['map', overlay])).toBe('');
    expect(refusal(qemuIo, write(overlay))).toContain('Failed to get "write" lock');
    await user.detach();
  });

  it('their writer keeps us out in their words, and a shared look gets in', async () => {
    const holder = await hold(['-f', 'qcow2', overlay]);
    try {
      for (const readOnly of [true, false]) {
        const refused = await errorOf(() => graph.openImage(overlay, 'qcow2', readOnly));
        const lock = readOnly ? 'shared "write"' : '"write"';
        expect(refused.message).toBe(`Could not open '${overlay}': Failed to get ${lock} lock`);
        expect(refused).toMatchObject({
          kind: 'locked',
          context: { hint: `Is another process using the image [${overlay}]?` },
        });
      }
      expect([...graph.nodes]).toEqual([]);
      const shared = await graph.openImage(overlay, 'qcow2', true, { forceShare: true });
      expect(shared.length).toBe(1_048_576);
      const below = await graph.openImage(base, 'qcow2', true);
      expect(below.length).toBe(1_048_576);
    } finally {
      holder.kill();
    }
  });

  /** The real qemu-io with the image open, waiting for commands. */
  function hold(args: readonly string[]): Promise<ChildProcess> {
    const child = spawn(qemuIo ?? '', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.stdout.once('data', () => resolve(child));
    });
  }
});
