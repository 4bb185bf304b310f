// SPDX-License-Identifier: Apache-2.0
// Logs of writes, byte for byte beside those of qemu-io.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { createEngine } from '../../src/engine/index.js';
import { openDefaultHost } from '../../src/host/index.js';
import { READ_WRITE } from '../helpers/graph.js';
import { peer } from '../helpers/peers.js';

const io = peer('qemu-io');
let directory = '';

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'write-log-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const SIZE = 1024 * 1024;

type Options = Readonly<Record<string, number | boolean>>;

function makeFiles(side: string, log: Uint8Array): { image: string; log: string } {
  const paths = { image: join(directory, `${side}.raw`), log: join(directory, `${side}.log`) };
  writeFileSync(paths.image, new Uint8Array(SIZE));
  writeFileSync(paths.log, log);
  return paths;
}

function logOfReference(options: Options, before: Uint8Array): Uint8Array {
  const { image, log } = makeFiles('theirs', before);
  const more = Object.entries(options).map(([key, value]) => `,${key}=${String(value)}`);
  const opened =
    `driver=blklogwrites,discard=unmap,file.driver=file,file.filename=${image},` +
    `log.driver=file,log.filename=${log}${more.join('')}`;
  const steps = [
    'write -P 1 512 1024',
    'write -P 2 100 50',
    'write -z 4k 4k',
    'flush',
    'discard 64k 4k',
    'write -P 3 1023k 1k',
    'flush',
  ];
  const commands = steps.flatMap((step) => ['-c', step]);
  execFileSync(io as string, ['-t', 'writeback', '--image-opts', opened, ...commands]);
  return readFileSync(log);
}

async function ownLog(options: Options, before: Uint8Array): Promise<Uint8Array> {
  const { image, log } = makeFiles('ours', before);
  const engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
  const node = await engine.addNode({
    driver: 'blklogwrites',
    'node-name': 'l',
    discard: 'unmap',
    file: { driver: 'file', filename: image },
    log: { driver: 'file', filename: log },
    ...options,
  });
  const user = await engine.graph.attach(node, 'guest', READ_WRITE);
  await user.write(512, new Uint8Array(1024).fill(1));
  await user.write(100, new Uint8Array(50).fill(2));
  await user.writeZeroes(4096, 4096);
  await user.flush();
  await user.discard(65_536, 4096);
  await user.write(1023 * 1024, new Uint8Array(1024).fill(3));
  await user.flush();
  await user.detach();
  await engine.close();
  return readFileSync(log);
}

describe.skipIf(io === null)('blklogwrites beside qemu-io', () => {
  const empty = new Uint8Array(0);

  it.each([
    {},
    { 'log-sector-size': 4096 },
    { 'log-sector-size': 256 },
    { 'log-super-update-interval': 1 },
  ])('writes the same log with %j', async (options) => {
    const theirs = logOfReference(options, empty);
    expect(Buffer.compare(await ownLog(options, empty), theirs)).toBe(0);
  });

  it('goes on with a log of the other', async () => {
    const first = logOfReference({}, empty);
    const theirs = logOfReference({ 'log-append': true }, first);
    expect(theirs.length).toBeGreaterThan(first.length);
    expect(Buffer.compare(await ownLog({ 'log-append': true }, first), theirs)).toBe(0);
  });

  it.each([
    ['no log', (bytes: Buffer) => bytes.fill(0x78, 0, 8), 'Invalid log superblock magic'],
    ['another version', (bytes: Buffer) => bytes.fill(9, 8, 9), 'Unsupported log version 9'],
    ['an odd sector', (bytes: Buffer) => bytes.fill(100, 24, 26), 'Invalid log sector size 25700'],
    ['too many entries', (bytes: Buffer) => bytes.fill(0x7f, 16, 22), 'log ends before entry'],
  ])('refuses to go on with %s', async (_, spoil, message) => {
    const log = Buffer.from(logOfReference({}, empty));
    spoil(log);
    await expect(ownLog({ 'log-append': true }, log)).rejects.toThrow(message);
  });
});
