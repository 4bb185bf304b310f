// SPDX-License-Identifier: Apache-2.0
// SIGKILL of our daemon while keyslots change: cryptsetup opens the image with every password that
// was not to go, and with none that is gone; what the job said it had done is there.
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { QmpEvent } from '../../src/client/index.js';
import { makeLuks } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import type { ProgramDaemon } from '../helpers/program-daemon.js';
import { someOf } from '../helpers/seeds.js';

const cryptsetup = peer('cryptsetup');
const program = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const usable = cryptsetup !== null && existsSync(program);

interface Kind {
  readonly name: string;
  readonly options: Readonly<Record<string, unknown>>;
  /** Passwords that open the image before and after. */
  readonly before: readonly string[];
  readonly after: readonly string[];
}

const KINDS: readonly Kind[] = [
  {
    name: 'one more password',
    options: { state: 'active', 'new-secret': 'new', 'iter-time': 1 },
    before: ['one', 'two'],
    after: ['one', 'two', 'new'],
  },
  {
    name: 'an erased keyslot',
    options: { state: 'inactive', 'old-secret': 'two' },
    before: ['one', 'two'],
    after: ['one'],
  },
  {
    name: 'a replaced password',
    options: { state: 'active', 'new-secret': 'new', keyslot: 6, 'iter-time': 1 },
    before: ['one', 'two'],
    after: ['one', 'new'],
  },
];

/** Null: the answer to the command; numbers: so many answers of query-jobs later. */
const MOMENTS = [null, 'running', 2, 5, 10, 20, 'waiting', 'pending', 'concluded'] as const;
type Moment = (typeof MOMENTS)[number];

async function startDaemon(folder: string): Promise<ProgramDaemon> {
  const daemon = await startProgramDaemon(folder);
  const { client } = daemon;
  for (const data of ['one', 'two', 'new']) {
    await client.execute('object-add', { 'qom-type': 'secret', id: data, data });
  }
  await client.execute('blockdev-add', {
    driver: 'luks',
    'node-name': 'l',
    'key-secret': 'one',
    file: { driver: 'file', filename: join(folder, 'a.luks') },
  });
  return daemon;
}

/** Runs the job and ends the daemon at that moment; resolves when it is gone. */
async function killAt(daemon: ProgramDaemon, kind: Kind, moment: Moment): Promise<void> {
  const { client } = daemon;
  const said = new Promise<void>((resolve) => {
    client.onEvent(({ event, data }: QmpEvent) => {
      if (event === 'JOB_STATUS_CHANGE' && data['status'] === moment) resolve();
    });
  });
  const options = { driver: 'luks', ...kind.options };
  await client.execute('blockdev-amend', {
    'job-id': 'j', 'node-name': 'l', options, force: true,
  } as never);
  if (typeof moment === 'string') await said;
  const questions = typeof moment === 'number' ? moment : 0;
  for (let each = 0; each < questions; each += 1) await client.execute('query-jobs');
  await daemon.end('SIGKILL');
}

function opens(folder: string, password: string): boolean {
  const args = ['luksOpen', '--test-passphrase', '-q', '-d', '-', join(folder, 'a.luks')];
  const { status } = spawnSync(cryptsetup ?? '', args, { input: password });
  expect([0, 2]).toContain(status);
  return status === 0;
}

describe.skipIf(!usable)('SIGKILL while keyslots change', () => {
  let template = '';
  beforeAll(async () => {
    template = mkdtempSync(join(tmpdir(), 'luks-kill-'));
    const slots = ['one', undefined, undefined, undefined, undefined, undefined, 'two'];
    writeFileSync(join(template, 'a.luks'), (await makeLuks(slots)).bytes);
  });
  afterAll(() => rmSync(template, { recursive: true, force: true }));

  const all = KINDS.flatMap((kind) => MOMENTS.map((moment) => ({ kind, moment })));
  for (const { kind, moment } of someOf(all, 7)) {
    it(`at ${moment ?? 'the answer'}: ${kind.name}`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'luks-kill-'));
      try {
        cpSync(template, folder, { recursive: true });
        await killAt(await startDaemon(folder), kind, moment);
        const isOver = ['waiting', 'pending', 'concluded'].includes(String(moment));
        for (const password of ['one', 'two', 'new']) {
          const good = opens(folder, password);
          const [was, is] = [kind.before, kind.after].map((list) => list.includes(password));
          if (isOver) expect(good, password).toBe(is);
          else expect([was, is], password).toContain(good);
        }
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
});
