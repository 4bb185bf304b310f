// SPDX-License-Identifier: Apache-2.0
// Snapshots and backing links made here, as the real programs read them.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import {
  changeBackingFile,
  createEngine,
  prepareSnapshotInto,
  prepareSnapshotOnto,
} from '../../src/engine/index.js';
import type { Engine, ReferenceHabits } from '../../src/engine/index.js';
import { openDefaultHost } from '../../src/host/index.js';
import { errorOf, pattern, READ_WRITE } from '../helpers/graph.js';
import { peer } from '../helpers/peers.js';

const qemuImg = peer('qemu-img');

describe.skipIf(qemuImg === null)('snapshots beside the real programs', () => {
  let folder = '';
  let engine: Engine;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'snapshots-'));
    img('create', '-q', '-f', 'raw', path('base.raw'), '1M');
    img('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', path('top.qcow2'));
    engine = await start();
  });

  afterEach(async () => {
    await engine.close();
    rmSync(folder, { recursive: true });
  });

  const path = (name: string): string => join(folder, name);
  const img = (...args: readonly string[]): string =>
    execFileSync(qemuImg as string, args, { encoding: 'utf8' });
  const info = (name: string): Record<string, unknown> =>
    JSON.parse(img('info', '-U', '--output=json', path(name))) as Record<string, unknown>;
  const start = (habits: Partial<ReferenceHabits> = {}): Promise<Engine> =>
    createEngine({ host: openDefaultHost(), lanes: 0, habits });

  async function addTop(readOnly = false): Promise<void> {
    const file = { driver: 'file', filename: path('top.qcow2') };
    const name = { 'node-name': 'top', 'read-only': readOnly };
    await engine.addNode({ driver: 'qcow2', ...name, file });
  }

  it('a guest writes on through a snapshot, and both moments can be read', async () => {
    await addTop();
    const top = engine.graph.require('top');
    const guest = await engine.graph.attach(top, 'guest', READ_WRITE);
    await guest.write(0, pattern(65_536, 1));
    const request = { file: path('snap.qcow2'), name: 'snap', format: 'qcow2', existing: false };
    await (await prepareSnapshotInto(engine, top, request)).commit();
    expect(guest.node.name).toBe('snap');
    expect(top.readOnly).toBe(true);
    await guest.write(4096, pattern(4096, 2));
    const now = new Uint8Array(65_536);
    await guest.read(0, now);
    const expected = pattern(65_536, 1);
    expected.set(pattern(4096, 2), 4096);
    expect(now).toEqual(expected);
    await guest.detach();
    expect(engine.graph.find('snap')).toBeNull();
    await engine.close();
    expect(info('snap.qcow2')).toMatchObject({
      'backing-filename': path('top.qcow2'),
      'backing-filename-format': 'qcow2',
    });
    img('check', '-q', path('snap.qcow2'));
    img('check', '-q', path('top.qcow2'));
    img('convert', '-O', 'raw', path('snap.qcow2'), path('flat.raw'));
    const there = img('compare', '-f', 'raw', '-F', 'qcow2', path('flat.raw'), path('snap.qcow2'));
    expect(there).toContain('Images are identical');
  });

  it('a snapshot of a node over a backing file of its own names the whole chain', async () => {
    const file = { driver: 'file', filename: path('top.qcow2') };
    img('create', '-q', '-f', 'qcow2', path('other.qcow2'), '1M');
    await engine.addNode({
      driver: 'qcow2',
      'node-name': 'top',
      file,
      backing: { driver: 'qcow2', file: { driver: 'file', filename: path('other.qcow2') } },
    });
    const request = { file: path('snap.qcow2'), name: 'snap', format: 'qcow2', existing: false };
    const top = engine.graph.require('top');
    await (await prepareSnapshotInto(engine, top, request)).commit();
    await engine.close();
    const name = String(info('snap.qcow2')['backing-filename']);
    expect(name).toContain(path('other.qcow2'));
    expect(name).not.toContain('base.raw');
    img('convert', '-O', 'raw', path('snap.qcow2'), path('flat.raw'));
  });

  it('a snapshot that is refused leaves user, graph and files as they were', async () => {
    await addTop();
    const top = engine.graph.require('top');
    const guest = await engine.graph.attach(top, 'guest', READ_WRITE);
    const before = info('top.qcow2');
    const names = (): string[] => [...engine.graph.nodes].map((node) => node.name);
    const nodes = names();
    const request = { file: path('no/snap.qcow2'), name: 's', format: 'qcow2', existing: false };
    await errorOf(() => prepareSnapshotInto(engine, top, request));
    await errorOf(() => prepareSnapshotInto(engine, top, { ...request, file: path('top.qcow2') }));
    await errorOf(() => prepareSnapshotInto(engine, top, { ...request, existing: true }));
    await errorOf(() => prepareSnapshotOnto(engine, top, 'top'));
    expect(guest.node).toBe(top);
    expect(top.readOnly).toBe(false);
    expect(names()).toEqual(nodes);
    expect(info('top.qcow2')).toEqual(before);
    await guest.write(0, pattern(512));
    await guest.detach();
  });

  it('a new backing link names the format that the backing file has', async () => {
    await addTop(true);
    const change = { device: 'top', image: 'top', backingFile: './base.raw' };
    await changeBackingFile(engine, change);
    expect(engine.graph.require('top').readOnly).toBe(true);
    expect(info('top.qcow2')).toMatchObject({
      'backing-filename': './base.raw',
      'backing-filename-format': 'raw',
    });
  });

  it('a new backing link names the overlay\'s format where that is asked for', async () => {
    await engine.close();
    engine = await start({ ownBackingFormat: true });
    await addTop();
    const change = { device: 'top', image: 'top', backingFile: 'base.raw' };
    await changeBackingFile(engine, change);
    expect(info('top.qcow2')['backing-filename-format']).toBe('qcow2');
  });
});
