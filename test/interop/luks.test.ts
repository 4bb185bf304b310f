// SPDX-License-Identifier: Apache-2.0
// LUKS images of every cipher, mode, vector and digest, written here and read by the reference and
// by cryptsetup, and the other way round: what is in them decides. All eight keyslots are tried
// with passwords that cryptsetup put there.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Permission, SeededRandom, systemClock } from '../../src/base/index.js';
import { createGraph, createRegistry } from '../../src/block/index.js';
import type { CreateContext, DriverRegistry, Graph } from '../../src/block/index.js';
import { deriveKey } from '../../src/crypto/index.js';
import { encodeLuksHeader, formatLuks, headerAreaBytes } from '../../src/crypto/luks/index.js';
import { checkedDrivers, DRIVER_LOADERS } from '../../src/engine/index.js';
import { openDefaultHost } from '../../src/host/index.js';
import {
  isKnownToCryptsetup,
  isKnownToImg,
  LUKS_KINDS,
  modeOf,
  nameOf,
  USUAL_KIND,
} from '../helpers/luks-kinds.js';
import type { LuksKind } from '../helpers/luks-kinds.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const img = peer('qemu-img');
const io = peer('qemu-io');
const cryptsetup = peer('cryptsetup');

const random = new SeededRandom(11);
const fill = (buffer: Uint8Array): void => random.fill(buffer);
const PASSWORD = 'what nobody knows';
const PAYLOAD = 64 * 1024;

let folder = '';
let graph: Graph;
let registry: DriverRegistry;
let plain: Uint8Array;
const path = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'luks-'));
  writeFileSync(path('key'), PASSWORD);
  plain = new Uint8Array(PAYLOAD);
  random.fill(plain);
  writeFileSync(path('plain'), plain);
  const host = openDefaultHost({ warn: () => undefined });
  registry = createRegistry({ drivers: checkedDrivers(DRIVER_LOADERS), probed: ['luks'] });
  graph = createGraph({
    host,
    registry,
    clock: systemClock,
    random: host.random,
    secret: (id) => Uint8Array.from(Buffer.from(id === 's0' ? PASSWORD : id)),
  });
});
afterAll(async () => {
  await graph.closeAll();
  rmSync(folder, { recursive: true, force: true });
});

async function makeImage(name: string, { spec, hash }: LuksKind, detached = false): Promise<void> {
  const made = await formatLuks(
    {
      spec,
      hash,
      password: Buffer.from(PASSWORD),
      slotIterations: 1000,
      digestIterations: 1000,
      detached,
    },
    { derive: deriveKey, fill },
  );
  const bytes = new Uint8Array(headerAreaBytes(spec) + (detached ? 0 : PAYLOAD));
  bytes.set(encodeLuksHeader(made.header));
  bytes.set(made.material, made.header.keyslots[0]?.materialOffset);
  writeFileSync(path(name), bytes);
}

/** Through a graph: what is in the image now, after writing `write` to its start. */
async function through(options: object, write: Uint8Array | null): Promise<Uint8Array> {
  const node = await graph.open({ driver: 'luks', 'key-secret': 's0', ...options });
  const { consistentRead, write: writes, all } = Permission;
  const permissions = { taken: consistentRead | writes, shared: all };
  const user = await graph.attach(node, 'test', permissions);
  await graph.close(node);
  try {
    if (write !== null) await user.write(0, write);
    await user.flush();
    const bytes = new Uint8Array(PAYLOAD);
    await user.read(0, bytes);
    return bytes;
  } finally {
    await user.detach();
  }
}

const run = (program: string | null, args: readonly string[]): string =>
  execFileSync(program as string, args, { cwd: folder, encoding: 'utf8', stdio: 'pipe' });

const fileOf = (name: string): object => ({ file: { driver: 'file', filename: path(name) } });

const OPTIONS = 'driver=luks,key-secret=s0,file.filename=';
const SECRET = ['--object', 'secret,id=s0,file=key'];

function imgReads(name: string): Uint8Array {
  run(img, ['convert', ...SECRET, '--image-opts', '-O', 'raw', `${OPTIONS}${name}`, 'out']);
  return readFileSync(path('out'));
}

function opens(args: readonly string[]): void {
  run(cryptsetup, ['luksOpen', '--test-passphrase', '--key-file', 'key', ...args]);
}

describe.skipIf(img === null || io === null || cryptsetup === null)('LUKS among programs', () => {
  it.each(someOf(LUKS_KINDS, 43).map((kind) => [nameOf(kind), kind] as const))(
    '%s is what the others make and read',
    async (_, kind) => {
      await makeImage('a', kind);
      expect(await through(fileOf('a'), plain)).toEqual(plain);
      // Of ecb it takes no vector beside it, which the reference wants to see.
      if (isKnownToCryptsetup(kind) && kind.spec.mode !== 'ecb') opens(['a']);
      const dump = run(cryptsetup, ['luksDump', 'a']);
      expect(dump).toContain(`Hash spec:     \t${kind.hash}\n`);
      if (isKnownToImg(kind)) {
        expect(Buffer.compare(imgReads('a'), plain)).toBe(0);
        run(io, [...SECRET, '--image-opts', '-c', 'write -P 9 700 9000', `${OPTIONS}a`]);
        const changed = plain.slice().fill(9, 700, 9700);
        expect(await through(fileOf('a'), null)).toEqual(changed);
      }
      if (isKnownToCryptsetup(kind)) await expectOfCryptsetup(kind);
    },
  );

  /** Made by cryptsetup, written here, read by the reference. */
  async function expectOfCryptsetup(kind: LuksKind): Promise<void> {
    const { spec, hash } = kind;
    const keyBits = Number(spec.cipher.slice(4)) * (spec.mode === 'xts' ? 2 : 1);
    writeFileSync(path('b'), '');
    truncateSync(path('b'), 4 * 1024 * 1024);
    run(cryptsetup, [
      'luksFormat', '-q', '--type', 'luks1', '--pbkdf-force-iterations', '1000',
      '--cipher', modeOf(spec), '--key-size', String(keyBits), '--hash', hash,
      'b', 'key',
    ]);
    await through(fileOf('b'), plain);
    expect((await through(fileOf('b'), null)).subarray(0, PAYLOAD)).toEqual(plain);
    opens(['b']);
    if (!isKnownToImg(kind) || spec.mode === 'ecb') return;
    expect(Buffer.compare(imgReads('b').subarray(0, PAYLOAD), plain)).toBe(0);
  }

  it('all eight keyslots that cryptsetup fills open the image, whichever are left', async () => {
    await makeImage('slots', USUAL_KIND);
    await through(fileOf('slots'), plain);
    const added = someOf([1, 2, 3, 4, 5, 6, 7], 3, 2);
    for (const slot of added) {
      writeFileSync(path(`key${slot}`), `password ${slot}`);
      run(cryptsetup, [
        'luksAddKey', '-q', '--pbkdf-force-iterations', '1000', '--key-file', 'key',
        '--key-slot', String(slot), 'slots', `key${slot}`,
      ]);
    }
    run(cryptsetup, ['luksKillSlot', '-q', 'slots', '0']);
    for (const slot of added) {
      const options = { ...fileOf('slots'), 'key-secret': `password ${slot}` };
      expect(await through(options, null)).toEqual(plain);
    }
    await expect(through(fileOf('slots'), null)).rejects.toThrow(/cannot unlock any keyslot/);
  });

  it('a header that lies apart is opened by both', async () => {
    const { spec } = USUAL_KIND;
    await makeImage('header', USUAL_KIND, true);
    writeFileSync(path('data'), new Uint8Array(PAYLOAD));
    const header = { header: { driver: 'file', filename: path('header') } };
    expect(await through({ ...fileOf('data'), ...header }, plain)).toEqual(plain);
    opens(['--header', 'header', 'data']);
    expect(run(cryptsetup, ['luksDump', 'header'])).toContain('Payload offset:\t0\n');
    // With the same header before it the same payload is the same image.
    const bytes = Buffer.concat([readFileSync(path('header')), readFileSync(path('data'))]);
    bytes.writeUInt32BE(headerAreaBytes(spec) / 512, 104);
    writeFileSync(path('joined'), bytes);
    expect(Buffer.compare(imgReads('joined'), plain)).toBe(0);
    run(cryptsetup, [
      'luksFormat', '-q', '--type', 'luks1', '--pbkdf-force-iterations', '1000',
      '--header', 'theirs', 'data', 'key',
    ]);
    const theirs = { header: { driver: 'file', filename: path('theirs') } };
    expect(await through({ ...fileOf('data'), ...theirs }, plain)).toEqual(plain);
    await expect(through(fileOf('header'), null)).rejects.toThrow(/header without a payload/);
  });

  it('a header and its payload are made as two files', async () => {
    for (const name of ['new-header', 'new-data']) writeFileSync(path(name), '');
    const driver = await registry.load('luks');
    const users: { detach(): Promise<void> }[] = [];
    const context: CreateContext = {
      host: graph.host,
      secret: () => Uint8Array.from(Buffer.from(PASSWORD)),
      async node(name) {
        const node = await graph.open({ driver: 'file', filename: path(String(name)) });
        const { write, resize, all } = Permission;
        users.push(await graph.attach(node, 'test', { taken: write | resize, shared: all }));
        await graph.close(node);
        return node;
      },
    };
    const options = { 'key-secret': 's0', 'iter-time': 0n, size: PAYLOAD };
    await driver.create?.(context, { ...options, file: 'new-data', header: 'new-header' });
    for (const user of users) await user.detach();
    expect(readFileSync(path('new-data')).length).toBe(PAYLOAD);
    opens(['--header', 'new-header', 'new-data']);
    const header = { header: { driver: 'file', filename: path('new-header') } };
    expect(await through({ ...fileOf('new-data'), ...header }, plain)).toEqual(plain);
  });
});
