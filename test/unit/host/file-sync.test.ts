// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import { FileBase } from '../../../src/host/file-base.js';
import type { LockRequest } from '../../../src/host/file-locks.js';
import { LockTable } from '../../../src/host/locks/lock-table.js';

/** A file whose host syncs end when the test says so. */
class HandFile extends FileBase {
  override readonly capabilities = {
    discard: false,
    writeZeroes: false,
    extents: false,
    locks: false,
  };
  override readonly descriptor = null;
  readonly hostCalls: string[] = [];
  readonly syncs: { finish(): void; fail(error: unknown): void }[] = [];

  constructor(noFlush = false) {
    super({
      path: 'hand',
      identity: { device: '0', inode: '0' },
      kind: 'file',
      readOnly: false,
      noFlush,
      alignment: 1,
      locks: new LockTable(),
    });
  }

  override size(): number {
    return 0;
  }
  override allocatedBytes(): number {
    return 0;
  }
  override read(): number {
    return 0;
  }
  override write(): void {
    this.assertWritable();
    this.noteWrite();
  }
  override writeZeroes(): void {}
  override discard(): void {}
  override extent(): { kind: 'data'; length: number } {
    return { kind: 'data', length: 0 };
  }
  override truncate(): void {}
  protected override syncHost(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.syncs.push({ finish: resolve, fail: reject });
    });
  }
  protected override adoptHostLocks(): void {}
  protected override lockHost({ taken, unshared }: LockRequest): void {
    this.hostCalls.push(`lock ${taken}/${unshared}`);
  }
  protected override closeHost(): Promise<void> {
    this.hostCalls.push('close');
    return Promise.resolve();
  }
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

it('the first sync of a file opened for writing is done, a second is skipped', async () => {
  const file = new HandFile();
  const first = file.sync();
  file.syncs[0]?.finish();
  await first;
  await file.sync();
  expect(file.syncs).toHaveLength(1);
});

it('callers with no write between them share one host sync', async () => {
  const file = new HandFile();
  file.write();
  const calls = [file.sync(), file.sync(), file.sync()];
  file.syncs[0]?.finish();
  await Promise.all(calls);
  expect(file.syncs).toHaveLength(1);
});

it('callers whose writes came after the start of a sync share the next', async () => {
  const file = new HandFile();
  let early = false;
  let late = 0;
  const calls = [file.sync().then(() => (early = true))];
  file.write();
  calls.push(file.sync().then(() => ((late += 1), true)));
  file.write();
  calls.push(file.sync().then(() => ((late += 1), true)));
  file.syncs[0]?.finish();
  await settled();
  expect([early, late, file.syncs.length]).toEqual([true, 0, 2]);
  file.syncs[1]?.finish();
  await Promise.all(calls);
  await file.sync();
  expect(file.syncs).toHaveLength(2);
});

it('a write during a host sync is not taken as flushed by it', async () => {
  const file = new HandFile();
  const first = file.sync();
  file.write();
  file.syncs[0]?.finish();
  await first;
  const second = file.sync();
  expect(file.syncs).toHaveLength(2);
  file.syncs[1]?.finish();
  await second;
});

it('bytes written through the descriptor count once they are noted', async () => {
  const file = new HandFile();
  const first = file.sync();
  file.syncs[0]?.finish();
  await first;
  file.noteForeignWrite();
  const second = file.sync();
  expect(file.syncs).toHaveLength(2);
  file.syncs[1]?.finish();
  await second;
});

it('a failed sync fails every later sync and write, and is never tried again', async () => {
  const file = new HandFile();
  const first = file.sync();
  file.write();
  const queued = file.sync();
  file.syncs[0]?.fail(new BlockError('no-space', 'No space left on device'));
  await expect(first).rejects.toMatchObject({ kind: 'no-space' });
  await expect(queued).rejects.toMatchObject({ kind: 'io' });
  await expect(file.sync()).rejects.toMatchObject({ kind: 'io' });
  expect(() => file.write()).toThrow('An earlier flush of \'hand\' failed: No space left');
  expect(file.syncs).toHaveLength(1);
  await file.close();
});

it('sync does nothing on a file opened without flushing', async () => {
  const file = new HandFile(true);
  file.write();
  await file.sync();
  expect(file.syncs).toHaveLength(0);
});

it('close waits for a running sync', async () => {
  const file = new HandFile();
  const sync = file.sync();
  let closed = false;
  const closing = file.close().then(() => (closed = true));
  await settled();
  expect(closed).toBe(false);
  file.syncs[0]?.finish();
  await Promise.all([sync, closing]);
});

it('a sync asked for as the running one ends joins the one that waits', async () => {
  const file = new HandFile();
  const calls = [file.sync()];
  const joined = calls[0]?.then(() => {
    file.write();
    return file.sync();
  });
  file.write();
  calls.push(file.sync());
  file.syncs[0]?.finish();
  await settled();
  expect(file.syncs).toHaveLength(2);
  for (const sync of file.syncs) sync.finish();
  await settled();
  for (const sync of file.syncs) sync.finish();
  await Promise.all([...calls, joined]);
});

it('close waits for whoever takes hold again in the turn of the last release', async () => {
  const file = new HandFile();
  let closed = false;
  file.hold();
  const closing = file.close().then(() => (closed = true));
  file.release();
  file.hold();
  await settled();
  expect(closed).toBe(false);
  file.release();
  await closing;
});

it('gives its locks back before the descriptor is closed', async () => {
  const file = new HandFile();
  file.lock({ taken: 2, unshared: 2 });
  await file.close();
  expect(file.hostCalls).toEqual(['lock 2/2', 'lock 0/0', 'close']);
});

it('closing syncs what was written, with the locks in place, and tells of a failure', async () => {
  const file = new HandFile();
  file.lock({ taken: 2, unshared: 2 });
  file.write();
  const closed = file.close();
  await Promise.resolve();
  expect(file.hostCalls).toEqual(['lock 2/2']);
  file.syncs[0]?.fail(new BlockError('io', 'no'));
  await expect(closed).rejects.toThrow('no');
  expect(file.hostCalls).toEqual(['lock 2/2', 'lock 0/0', 'close']);
});

it('closing syncs nothing that was synced, nor after a failed sync', async () => {
  for (const fails of [false, true]) {
    const file = new HandFile();
    file.write();
    const synced = file.sync();
    if (fails) file.syncs[0]?.fail(new BlockError('io', 'no'));
    else file.syncs[0]?.finish();
    await synced.catch(() => undefined);
    await file.close();
    expect(file.syncs).toHaveLength(1);
  }
});
