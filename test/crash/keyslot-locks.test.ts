// SPDX-License-Identifier: Apache-2.0
// While keyslots change nobody else gets at the image: a daemon, ours or the real one, is held in
// the middle of a change by a throttle that lets one write go. Command lines of both are refused
// in the same words, by either daemon, and nothing of the file changes; when the daemon is killed
// they go on.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { QmpClient } from '../../src/client/index.js';
import { parseAnyLuksHeader } from '../../src/crypto/luks/index.js';
import { nativeAddon } from '../../src/host/index.js';
import { runIn } from '../helpers/command-line.js';
import type { Outcome } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { inQcow2, luksOfQcow2, makeLuks, slotPasswords } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import { startRealDaemon } from '../helpers/real-daemon.js';

const daemon = peer('qemu-storage-daemon');
const tools = [peer('qemu-img'), peer('qemu-io'), daemon];
const program = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
/** Without the addon no locks are set. */
const usable = !tools.includes(null) && existsSync(program) && nativeAddon() !== null;

type Format = 'luks' | 'qcow2';
const PASSWORDS = ['one', 'two', 'new'];
const OBJECTS = PASSWORDS.map((word) => `--object secret,id=${word},data=${word}`).join(' ');

const IMAGES = {
  luks: 'driver=luks,key-secret=one,file.filename=image',
  qcow2: 'driver=qcow2,encrypt.format=luks,encrypt.key-secret=one,file.filename=image',
} as const;

function linesFor(format: Format): readonly string[] {
  const prefix = format === 'luks' ? '' : 'encrypt.';
  const image = `--image-opts ${IMAGES[format]}`;
  const amend = (options: string): string =>
    `qemu-img amend ${OBJECTS} -o ${options.replaceAll(/(^|,)/g, `$1${prefix}`)} ${image}`;
  return [
    amend('state=active,new-secret=new,iter-time=0'),
    amend('state=inactive,old-secret=one'),
    `qemu-img convert ${OBJECTS} -O raw ${image} copy`,
    `qemu-io ${OBJECTS} -r -c read_0_512 ${image}`,
    `qemu-io ${OBJECTS} -c write_0_512 ${image}`,
  ];
}

/** A line that only this program knows. */
const RESTORE = 'img luks header-restore image backup';

/** No key is derived: the reference would measure its time, and fails in that now and then. */
const WISH = { state: 'inactive', keyslot: 1 };

/** Begins to erase a keyslot; resolves when it is inactive, and all else waits. */
async function beginChange(client: QmpClient, folder: string, format: Format): Promise<void> {
  const run = (command: string, args: object): Promise<unknown> =>
    client.executeAny(command, args as never);
  const [path, isLuks] = [join(folder, 'image'), format === 'luks'];
  for (const data of PASSWORDS) {
    await run('object-add', { 'qom-type': 'secret', id: data, data });
  }
  const limits = { 'bps-write': 1 };
  await run('object-add', { 'qom-type': 'throttle-group', id: 'g', limits });
  const bytes = { driver: 'file', filename: path };
  const file = { driver: 'throttle', 'throttle-group': 'g', file: bytes };
  const encrypt = { format: 'luks', 'key-secret': 'one' };
  const key = isLuks ? { 'key-secret': 'one' } : { encrypt };
  await run('blockdev-add', { driver: format, 'node-name': 'l', file, ...key });
  const watcher = watch(path);
  const changed = once(watcher, 'change');
  const members = isLuks ? WISH : { encrypt: { format: 'luks', ...WISH } };
  await run('x-blockdev-amend', {
    'job-id': 'j', 'node-name': 'l', options: { driver: format, ...members },
  });
  await changed;
  watcher.close();
}

describe.skipIf(!usable)('while keyslots change', () => {
  const server = new CommandServer();
  let folder = '';
  let luks: Uint8Array;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'keyslot-locks-'));
    luks = (await makeLuks(['one', 'two'])).bytes;
    writeFileSync(join(folder, 'backup'), luks);
  });
  afterAll(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const words = (line: string): string[] =>
    line.split(' ').map((word) => word.replace(/^(read|write)_0_/, '$1 0 '));
  const real = (line: string): Outcome => {
    const [name = '', ...args] = words(line);
    return runIn(folder, [peer(name) ?? '', ...args]);
  };
  const ours = (line: string): Outcome => {
    const [name = '', ...args] = words(line);
    const verb = name === 'qemu-img' ? 'img' : 'io';
    const { out, err, status } = server.run(folder, ['--as', name, verb, ...args]);
    return { out, err, status };
  };

  const cases = (['luks', 'qcow2'] as const).flatMap((format) =>
    (['our', 'the real'] as const).map((holder) => ({ format, holder })),
  );

  /** What others are told while the daemon changes the image; it is killed then. */
  async function requireKeptOut(format: Format, isOurs: boolean): Promise<void> {
    const path = join(folder, 'image');
    await using held = isOurs
      ? await startProgramDaemon(folder)
      : await startRealDaemon(daemon ?? '', folder);
    const client = 'client' in held ? held.client : await QmpClient.over(held.socket);
    await beginChange(client, folder, format);
    const before = readFileSync(path);
    for (const line of linesFor(format)) {
      const refused = ours(line);
      expect(refused, line).toEqual(real(line));
      expect(refused.err, line).toMatch(/Failed to get (shared )?"(write|consistent read)" lock/);
      expect(refused.status).toBe(1);
    }
    const { err, status } = server.run(folder, RESTORE.split(' '));
    expect([err, status]).toEqual([expect.stringContaining('Failed to get'), 1]);
    expect(Buffer.compare(readFileSync(path), before)).toBe(0);
    expect(existsSync(join(folder, 'copy'))).toBe(false);
  }

  it.each(cases)('$format: $holder daemon keeps others out', async ({ format, holder }) => {
    const path = join(folder, 'image');
    writeFileSync(path, format === 'luks' ? luks : inQcow2(luks));
    await requireKeptOut(format, holder === 'our');
    const [amend = ''] = linesFor(format);
    expect(ours(amend)).toEqual({ out: '', err: '', status: 0 });
    const now = new Uint8Array(readFileSync(path));
    const area = format === 'luks' ? now : luksOfQcow2(now);
    const found = await slotPasswords(area, parseAnyLuksHeader(area), PASSWORDS);
    expect(found.slice(0, 3)).toEqual(['one', 'new', 'erased']);
  });

  it('a daemon that is refused for another reader lets others in, and can try again', async () => {
    const path = join(folder, 'image');
    writeFileSync(path, luks);
    await using held = await startProgramDaemon(folder);
    const { client } = held;
    const run = (command: string, args: object): Promise<unknown> =>
      client.executeAny(command, args as never);
    await run('object-add', { 'qom-type': 'secret', id: 'one', data: 'one' });
    const file = { driver: 'file', filename: path };
    await run('blockdev-add', { driver: 'luks', 'node-name': 'l', 'key-secret': 'one', file });
    const options = { driver: 'luks', ...WISH };
    const amend = (id: string): Promise<unknown> =>
      run('x-blockdev-amend', { 'job-id': id, 'node-name': 'l', options });
    const image = ['--image-opts', IMAGES.luks, ...OBJECTS.split(' ')];
    const reader = spawn(peer('qemu-io') ?? '', ['-r', ...image], { cwd: folder });
    const gone = once(reader, 'exit');
    reader.stdin.write('length\n');
    await once(reader.stdout, 'data');
    await expect(amend('a')).rejects.toThrow('Failed to get shared "consistent read" lock');
    const read = ['-r', '-c', 'read 0 512', ...image];
    expect(runIn(folder, [peer('qemu-io') ?? '', ...read])).toMatchObject({ err: '', status: 0 });
    expect(Buffer.compare(readFileSync(path), luks)).toBe(0);
    reader.stdin.end('quit\n');
    await gone;
    const job = client.job('b');
    await amend('b');
    expect(await job.done).toMatchObject({ result: 'completed', error: null });
    const now = new Uint8Array(readFileSync(path));
    const found = await slotPasswords(now, parseAnyLuksHeader(now), PASSWORDS);
    expect(found.slice(0, 2)).toEqual(['one', 'erased']);
  });
});
