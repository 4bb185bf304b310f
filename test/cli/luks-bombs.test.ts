// SPDX-License-Identifier: Apache-2.0
// Headers that ask for hours of work: every verb that needs a key refuses them before it begins,
// those that need none do what they do; and what was begun because its user raised the limit ends
// with Ctrl-C, or with the daemon, leaving no process behind.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';

import { connect } from '../../src/client/index.js';
import { CommandServer } from '../helpers/command-server.js';
import { LUKS_PASSWORD } from '../helpers/luks.js';
import { inQcow2, makeLuks } from '../helpers/luks-images.js';
import { makeLuks2, putCopies } from '../helpers/luks2-payload.js';
import { misdeeds, measureLine } from '../helpers/measured-run.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';

const MOST = 2 ** 32 - 1;
const SLOW_HASH = 'md5';
const SECRET = ['--object', `secret,id=k,data=${LUKS_PASSWORD}`];
const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;

interface Bomb {
  readonly name: string;
  readonly driver: 'luks' | 'qcow2';
  readonly says: RegExp;
}

const ESTIMATE = /^Unlocking '.*IMAGE' would take about \d+ s with .*, more than the 60 s of /;
const BOMBS: readonly Bomb[] = [
  { name: 'slot', driver: 'luks', says: ESTIMATE },
  { name: 'digest', driver: 'luks', says: ESTIMATE },
  { name: 'slow-hash', driver: 'luks', says: ESTIMATE },
  { name: 'inside.qcow2', driver: 'qcow2', says: ESTIMATE },
  { name: 'pbkdf2', driver: 'luks', says: ESTIMATE },
  { name: 'argon2-passes', driver: 'luks', says: ESTIMATE },
  { name: 'argon2-memory', driver: 'luks', says: /keyslots\.0\.kdf\.memory 4194304 .* supported$/ },
];

const folder = mkdtempSync(join(tmpdir(), 'luks-bombs-'));
const server = new CommandServer();

function put(name: string, bytes: Uint8Array): void {
  writeFileSync(join(folder, name), bytes);
}

async function putLuks1(): Promise<void> {
  const { bytes } = await makeLuks([LUKS_PASSWORD], { payload: 4096 });
  const changed = (change: (view: DataView, copy: Uint8Array) => void): Uint8Array => {
    const copy = bytes.slice();
    change(new DataView(copy.buffer), copy);
    return copy;
  };
  put('slot', changed((view) => view.setUint32(212, MOST)));
  put('digest', changed((view) => view.setUint32(164, MOST)));
  const slow = changed((view, copy) => {
    view.setUint32(212, 2 ** 31 - 1);
    copy.fill(0, 72, 104);
    copy.set(Buffer.from(SLOW_HASH), 72);
  });
  put('slow-hash', slow);
  put('inside.qcow2', inQcow2(readFileSync(join(folder, 'slot'))));
}

async function putLuks2(): Promise<void> {
  const { bytes, text } = await makeLuks2(new Uint8Array(4096));
  const { keyslots } = text as { keyslots: { '0': { kdf: Record<string, unknown> } } };
  const { salt } = keyslots['0'].kdf;
  const kdfs = {
    pbkdf2: { type: 'pbkdf2', hash: 'sha256', iterations: 2 ** 31 - 1, salt },
    'argon2-passes': { type: 'argon2id', time: 2 ** 31 - 1, memory: 65_536, cpus: 4, salt },
    'argon2-memory': { type: 'argon2id', time: 4, memory: 2 ** 22, cpus: 4, salt },
  };
  for (const [name, kdf] of Object.entries(kdfs)) {
    keyslots['0'].kdf = kdf;
    putCopies(bytes, JSON.stringify(text));
    put(name, bytes);
  }
}

beforeAll(async () => {
  await putLuks1();
  await putLuks2();
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

const optionsOf = ({ name, driver }: Bomb): string =>
  driver === 'luks'
    ? `driver=luks,key-secret=k,file.filename=${name}`
    : `driver=qcow2,encrypt.format=luks,encrypt.key-secret=k,file.filename=${name}`;

/** All need a key. */
function linesOf(bomb: Bomb): readonly (readonly string[])[] {
  const image = ['--image-opts', optionsOf(bomb)];
  const prefix = bomb.driver === 'qcow2' ? 'encrypt.' : '';
  const slot = `${prefix}state=active,${prefix}new-secret=k`;
  return [
    ['img', 'check', ...SECRET, ...image],
    ['img', 'map', ...SECRET, ...image],
    ['img', 'measure', ...SECRET, '-O', 'qcow2', ...image],
    ['img', 'convert', ...SECRET, '-O', 'raw', ...image, 'out'],
    ['img', 'resize', ...SECRET, ...image, '+1M'],
    ['img', 'amend', ...SECRET, ...image, '-o', slot],
    ['img', 'luks', 'test-passphrase', ...SECRET, ...image],
    ['io', ...SECRET, '-r', '-c', 'read 0 512', ...image],
  ];
}

describe('a header that asks for hours', () => {
  it.each(BOMBS)('is refused by whatever needs its key: $name', (bomb) => {
    const before = readFileSync(join(folder, bomb.name));
    for (const words of linesOf(bomb)) {
      const run = measureLine(server, words, folder);
      expect(misdeeds(run), words.join(' ')).toEqual([]);
      expect(run.status, words.join(' ')).toBe(1);
      const message = run.complaint.trimEnd().replace(/^.*?(?=Unlocking|LUKS2 header)/, '');
      expect(message.replace(bomb.name, 'IMAGE'), words.join(' ')).toMatch(bomb.says);
    }
    expect(readFileSync(join(folder, bomb.name)).equals(before)).toBe(true);
  });

  it('can be looked at', () => {
    for (const { name, driver } of BOMBS) {
      const format = driver === 'luks' ? ['-f', 'luks'] : [];
      for (const words of [
        ['img', 'info', ...format, name],
        ['img', 'luks', 'dump', ...(driver === 'qcow2' ? ['-f', 'qcow2'] : []), name],
      ]) {
        const { err, status } = server.run(folder, words);
        expect({ words, err, status }).toEqual({ words, err: '', status: 0 });
      }
    }
  });
});

/** Processes that the process started. */
function childrenOf(pid: number): readonly number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

/** Turns of the event loop after which something that did not happen never will. */
const MANY_TURNS = 200_000;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The process that derives a key, once it is there. */
async function derivingProcess(pid: number): Promise<number> {
  for (let count = 0; count < MANY_TURNS; count += 1) {
    const [child] = childrenOf(pid);
    if (child !== undefined) return child;
    await turn();
  }
  throw new Error('no process derives a key');
}

/** It is gone, or dead and waiting to be. */
async function isGone(pid: number): Promise<boolean> {
  for (let count = 0; count < MANY_TURNS; count += 1) {
    try {
      if (/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) return true;
    } catch {
      return true;
    }
    await turn();
  }
  return false;
}

describe('a derivation that its user asked for', () => {
  // The addon can be stopped; without it there is a process for what takes long.
  beforeEach(() => void vi.stubEnv('BLOCKWRIGHT_NATIVE', '0'));
  afterEach(() => void vi.unstubAllEnvs());

  it('ends with Ctrl-C, and its process with it', async () => {
    const options = 'driver=luks,key-secret=k,key-derivation-limit=1000000,file.filename=slow-hash';
    const words = ['io', ...SECRET, '-r', '-c', 'read 0 512', '--image-opts', options];
    const child = spawn(process.execPath, [MAIN, ...words], { cwd: folder, stdio: 'ignore' });
    const ended = once(child, 'exit');
    try {
      const deriving = await derivingProcess(child.pid ?? 0);
      child.kill('SIGINT');
      const [status, signal] = (await ended) as [number | null, string | null];
      expect({ status, signal }).toEqual({ status: null, signal: 'SIGINT' });
      expect(await isGone(deriving)).toBe(true);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('ends with the daemon, which any client can end', async () => {
    await using daemon = await startProgramDaemon(folder, SECRET);
    const opening = daemon.client.execute('blockdev-add', {
      driver: 'luks',
      'node-name': 'n',
      'key-secret': 'k',
      'key-derivation-limit': 1_000_000,
      file: { driver: 'file', filename: join(folder, 'slow-hash') },
    });
    const outcome = opening.then(
      () => 'opened',
      (error: Error) => error.message,
    );
    const deriving = await derivingProcess(daemon.pid);
    const other = await connect({ path: daemon.path });
    await other.execute('quit');
    expect(await outcome).toContain('The derivation of a key was cancelled');
    await other.close();
    expect(await isGone(deriving)).toBe(true);
  });
});
