// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { bufferPool, createWorkerPool } from '../../../src/host/index.js';

const SCRIPT = `
import { threadId } from 'node:worker_threads';
export default (task) => task * 2;
export const fill = ({ slab, value }) => { slab.fill(value); return threadId; };
export const fail = () => { throw new Error('no luck'); };
`;

let folder = '';
let script = new URL('file:///');
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-pool-'));
  const path = join(folder, 'task.mjs');
  writeFileSync(path, SCRIPT);
  script = pathToFileURL(path);
});
afterAll(() => rmSync(folder, { recursive: true }));

it('runs the default export and named ones on threads that share slabs', async () => {
  const pool = createWorkerPool({ script, threads: 2 });
  await pool.warmUp();
  expect(await pool.run<number>(21)).toBe(42);
  const slab = bufferPool.take();
  slab.fill(0);
  const thread = await pool.run<number>({ slab, value: 7 }, { name: 'fill' });
  expect(thread).toBeGreaterThan(0);
  expect(slab.every((byte) => byte === 7)).toBe(true);
  bufferPool.give(slab);
  await pool.close();
});

it('a task that throws rejects, and the pool goes on', async () => {
  const pool = createWorkerPool({ script, threads: 1 });
  await expect(pool.run(null, { name: 'fail' })).rejects.toThrow('no luck');
  expect(await pool.run<number>(1)).toBe(2);
  await pool.close();
});

it('has 1 to 4 threads, and starts none before the first task', async () => {
  expect(createWorkerPool({ script, threads: 100 }).threads).toBe(4);
  expect(createWorkerPool({ script, threads: 0 }).threads).toBe(1);
  await createWorkerPool({ script }).close();
});
