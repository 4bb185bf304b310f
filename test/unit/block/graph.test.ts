// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';

import { Permission } from '../../../src/base/index.js';
import type { Graph } from '../../../src/block/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_ONLY,
  READ_WRITE,
} from '../../helpers/graph.js';

async function setUp(): Promise<{ host: MemoryHost; graph: Graph }> {
  const host = new MemoryHost();
  await makeFile(host, '/disk', pattern(65_536));
  return { host, graph: graphOn(host) };
}

const RAW = { driver: 'raw', 'node-name': 'disk', file: { driver: 'file', filename: '/disk' } };

describe('opening nodes', () => {
  it('reads and writes through raw and file', async () => {
    const { graph } = await setUp();
    const node = await graph.open(RAW);
    const backend = await graph.attach(node, 'test', READ_WRITE);
    const buffer = new Uint8Array(4096);
    expect(backend.read(512, buffer)).toBeUndefined();
    expect(buffer).toEqual(pattern(65_536).subarray(512, 4608));
    expect(backend.write(512, new Uint8Array(4096).fill(7))).toBeUndefined();
    await backend.read(512, buffer);
    expect(buffer).toEqual(new Uint8Array(4096).fill(7));
    await backend.detach();
    await graph.close(node);
    expect([...graph.nodes]).toEqual([]);
  });

  it('refuses names as the reference does', async () => {
    const { graph } = await setUp();
    await graph.open(RAW);
    const again = async (name: string): Promise<string> =>
      (await errorOf(() => graph.open({ ...RAW, 'node-name': name }))).message;
    expect(await again('disk')).toBe("Duplicate nodes with node-name='disk'");
    expect(await again('1a')).toBe("Invalid node-name: '1a'");
    expect(await again('')).toBe("Invalid node-name: ''");
    expect(await again('a'.repeat(32))).toBe('Node name too long');
    const missing = await errorOf(() => graph.open({ driver: 'raw', file: 'nope' }));
    expect(missing.message).toBe("Cannot find device='nope' nor node-name='nope'");
  });

  it('a refused open leaves no node, name, file or lock behind', async () => {
    const { graph } = await setUp();
    const wrong = { ...RAW, size: 2 ** 30 };
    const refusal = await errorOf(() => graph.open(wrong));
    expect(refusal.message).toMatch(/^The sum of offset \(0\) and size \(1073741824\)/);
    expect([...graph.nodes]).toEqual([]);
    const node = await graph.open(RAW);
    expect(node.name).toBe('disk');
    await graph.closeAll();
  });

  it('an inline child dies with its parent, a referenced one does not', async () => {
    const { graph } = await setUp();
    const file = await graph.open({ driver: 'file', 'node-name': 'f', filename: '/disk' });
    const one = await graph.open({ driver: 'raw', 'node-name': 'one', file: 'f' });
    expect(one.children.get('file')?.node).toBe(file);
    await graph.close(one);
    expect([...graph.nodes].map((node) => node.name)).toEqual(['f']);
    const two = await graph.open(RAW);
    expect([...graph.nodes].length).toBe(3);
    await graph.close(two);
    expect([...graph.nodes].map((node) => node.name)).toEqual(['f']);
  });

  it('null-co refuses a size below zero', async () => {
    const { graph } = await setUp();
    const refusal = await errorOf(() => graph.open({ driver: 'null-co', size: -1 }));
    expect(refusal.message).toMatch(/size -1/);
  });

  it('gives the name that opens the image again', async () => {
    const { graph } = await setUp();
    expect((await graph.open(RAW)).filename).toBe('/disk');
    const windowed = await graph.open({ ...RAW, 'node-name': 'w', offset: 512, 'read-only': true });
    expect(windowed.filename).toBe(
      'json:{"offset": 512, "driver": "raw", "file": {"driver": "file", "filename": "/disk"}}',
    );
    const again = await graph.openImage(windowed.filename, null, true);
    const buffer = new Uint8Array(16);
    await again.read({ kind: 'read', offset: 0, length: 16, buffer, flags: 0 });
    expect(buffer).toEqual(pattern(65_536).subarray(512, 528));
  });
});

describe('openImage', () => {
  it('says why a file cannot be opened, as command lines print it', async () => {
    const { graph } = await setUp();
    const refusal = await errorOf(() => graph.openImage('/none', 'raw', true));
    expect(refusal.message).toBe(
      "Could not open '/none': Could not open '/none': No such file or directory",
    );
    expect((await errorOf(() => graph.openImage('foo:bar', null, true))).message).toBe(
      "Could not open 'foo:bar': Unknown protocol 'foo'",
    );
  });

  it('an image in use for writing cannot be opened again, unless shared', async () => {
    const { graph } = await setUp();
    const node = await graph.openImage('/disk', 'raw', false);
    const exclusive = {
      taken: Permission.write | Permission.consistentRead,
      shared: Permission.consistentRead,
    };
    const careful = { ...READ_ONLY, shared: Permission.all & ~Permission.write };
    const backend = await graph.attach(node, 'user', exclusive);
    const other = await graph.openImage('/disk', 'raw', true);
    const refusal = await errorOf(() => graph.attach(other, 'reader', careful));
    expect(refusal.message).toMatch(/Failed to get/);
    const forced = await graph.openImage('/disk', 'raw', true, { forceShare: true });
    await (await graph.attach(forced, 'reader', READ_ONLY)).detach();
    await backend.detach();
    await (await graph.attach(other, 'reader', careful)).detach();
    await graph.closeAll();
  });
});

describe('permissions', () => {
  it('a conflict names both sides and the permission, and changes nothing', async () => {
    const { graph } = await setUp();
    const node = await graph.open(RAW);
    const first = await graph.attach(node, 'export a', {
      taken: Permission.consistentRead,
      shared: Permission.consistentRead,
    });
    const refusal = await errorOf(() => graph.attach(node, 'export b', READ_WRITE));
    expect(refusal.message).toBe(
      "Permission conflict on node 'disk': permissions 'write' are both required by export b " +
        "(uses node 'disk' as 'root' child) and unshared by export a (uses node 'disk' as 'root' " +
        'child).',
    );
    expect(node.parents.size).toBe(1);
    await first.detach();
    const second = await graph.attach(node, 'export b', READ_WRITE);
    const raised = { taken: Permission.consistentRead, shared: Permission.none };
    const third = await graph.attach(node, 'export c', READ_ONLY);
    expect(() => third.setPermissions(raised)).toThrow(/Permission conflict/);
    expect(third.child.permissions).toEqual(READ_ONLY);
    expect(second.child.permissions).toEqual(READ_WRITE);
    await graph.closeAll();
  });

  it('writing needs the permission and a writable node', async () => {
    const { graph } = await setUp();
    const node = await graph.open({ ...RAW, 'read-only': true });
    const refusal = await errorOf(() => graph.attach(node, 'w', READ_WRITE));
    expect(refusal.message).toBe('Block node is read-only');
    const reader = await graph.attach(node, 'r', READ_ONLY);
    const written = await errorOf(() => reader.write(0, new Uint8Array(512)));
    expect(written).toMatchObject({ kind: 'read-only', errno: 'EPERM' });
    await reader.detach();
  });

  it('a lock conflict refuses the change with nothing changed', async () => {
    const { host, graph } = await setUp();
    const node = await graph.open(RAW);
    const foreign = await host.openFile('/disk', { readOnly: true });
    foreign.lock({ taken: Permission.consistentRead, unshared: Permission.write });
    const refusal = await errorOf(() => graph.attach(node, 'w', READ_WRITE));
    expect(refusal).toMatchObject({ kind: 'locked', message: 'Failed to get "write" lock' });
    expect(node.parents.size).toBe(0);
    const file = node.children.get('file');
    expect(file?.permissions.taken).toBe(Permission.none);
    foreign.lock({ taken: 0, unshared: 0 });
    await (await graph.attach(node, 'w', READ_WRITE)).detach();
    foreign.lock({ taken: 0, unshared: Permission.write });
    await foreign.close();
  });

  it('lowering permissions releases the locks', async () => {
    const { host, graph } = await setUp();
    const node = await graph.open(RAW);
    const backend = await graph.attach(node, 'w', { ...READ_WRITE, shared: Permission.none });
    const foreign = await host.openFile('/disk', { readOnly: true });
    expect(() => foreign.lock({ taken: Permission.consistentRead, unshared: 0 })).toThrow(/lock/);
    backend.setPermissions({ taken: Permission.none, shared: Permission.all });
    foreign.lock({ taken: Permission.consistentRead, unshared: Permission.write });
    await foreign.close();
    await graph.closeAll();
  });
});
