// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { Permission } from '../../src/base/index.js';
import { QmpClient } from '../../src/client/index.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';

const img = peer('qemu-img');
const io = peer('qemu-io');

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'corruption-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe.skipIf(img === null || io === null)('BLOCK_IMAGE_CORRUPTED', () => {
  it('is sent once when a write would overwrite the L1 table, which stays as it was', async () => {
    const path = join(directory, 'a.qcow2');
    execFileSync(img as string, ['create', '-q', '-f', 'qcow2', path, '1M']);
    execFileSync(io as string, ['-c', 'write 0 64k', path]);
    const bytes = readFileSync(path);
    const l1Offset = Number(bytes.readBigUInt64BE(40));
    const l2Offset = Number(bytes.readBigUInt64BE(l1Offset) & 0x00ff_ffff_ffff_fe00n);
    bytes.writeBigUInt64BE((1n << 63n) | BigInt(l1Offset), l2Offset);
    writeFileSync(path, bytes);

    await using own = await startOwnDaemon(directory);
    await using client = await QmpClient.over(await own.connect());
    const events = client.events();
    const file = { driver: 'file', filename: path } as const;
    await client.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'a', file });
    const guest = await own.engine.graph.attach(own.engine.graph.require('a'), 'guest', {
      taken: Permission.consistentRead | Permission.write,
      shared: Permission.all,
    });
    for (let attempt = 0; attempt < 2; attempt += 1) {
      await expect((async () => guest.write(0, new Uint8Array(512)))()).rejects.toThrow(path);
    }
    const { value } = await events.next();
    expect(value).toMatchObject({
      event: 'BLOCK_IMAGE_CORRUPTED',
      data: {
        device: '',
        'node-name': 'a',
        msg: 'Preventing invalid write on metadata (overlaps with active L1 table)',
        offset: l1Offset,
        size: 512,
        fatal: true,
      },
    });
    await guest.detach();
    await client.execute('blockdev-del', { 'node-name': 'a' });
    await client.execute('quit');
    const after = readFileSync(path);
    expect(after.readBigUInt64BE(72) & 2n).toBe(2n);
    const table = [l1Offset, l1Offset + 512] as const;
    expect(after.subarray(...table)).toEqual(bytes.subarray(...table));
  });
});
