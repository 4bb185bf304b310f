// SPDX-License-Identifier: Apache-2.0
// `img luks header-restore` on a disk that loses its power at every write, raw and in qcow2: what
// is left opens with the old or the new password, and when the command has ended all is durable.
import { describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { runImg } from '../../src/cli/img/index.js';
import { KeyslotEditor, parseAnyLuksHeader, readBackup } from '../../src/crypto/luks/index.js';
import { CrashDisk } from '../../src/host/index.js';
import {
  inQcow2,
  luksOfQcow2,
  makeLuks,
  MemoryArea,
  passwordBytes,
  quickTools,
  slotPasswords,
} from '../helpers/luks-images.js';
import { runs } from '../helpers/seeds.js';

const OUTCOMES = runs(1, 40);
const WORDS = ['then', 'now'];
const KINDS = [
  { name: 'raw', wrap: (luks: Uint8Array) => luks, luksOf: (bytes: Uint8Array) => bytes },
  { name: 'qcow2', wrap: inQcow2, luksOf: luksOfQcow2 },
];

async function run(host: CrashDisk, ...words: string[]): Promise<string> {
  const said: string[] = [];
  const say = (text: string): void => void said.push(text);
  const status = await runImg(words, { name: 'img', out: say, err: say, terminal: false, host });
  return `${status} ${said.join('')}`;
}

/** The volume with password `then`, its backup, and the volume later, with `now` in its place. */
async function volume() {
  const { bytes: before, masterKey } = await makeLuks(['then']);
  const header = parseAnyLuksHeader(before);
  const backup = await readBackup(new MemoryArea(before), header);
  const area = new MemoryArea(before.slice());
  const editor = new KeyslotEditor(area, header, quickTools);
  await editor.add(1, { masterKey, password: passwordBytes('now'), iterations: 1 });
  await editor.erase(0);
  return { before, backup, later: area.bytes };
}

describe.each(KINDS)('header-restore: $name', ({ wrap, luksOf }) => {
  it('leaves a password that opens wherever the power goes', async () => {
    const { before, backup, later } = await volume();
    const host = new CrashDisk();
    host.putFile('/a', wrap(later));
    host.putFile('/b', backup);
    const random = new SeededRandom(7);
    const disks: Uint8Array[] = [];
    host.onWrite = () => {
      for (let outcome = 0; outcome < OUTCOMES; outcome += 1) {
        disks.push(luksOf(host.afterPowerLoss(random).fileContents('/a')));
      }
    };
    expect(await run(host, 'luks', 'header-restore', '-q', '/a', '/b')).toBe('0 ');
    expect(disks.length).toBeGreaterThan(4);
    for (const luks of disks) {
      const found = await slotPasswords(luks, parseAnyLuksHeader(luks), WORDS);
      expect(found.some((word) => WORDS.includes(word)), found.join(' ')).toBe(true);
    }
    const expected = later.slice();
    expected.set(before.subarray(0, backup.length));
    expected.set(backup);
    const durable = host.durable().fileContents('/a');
    expect(Buffer.compare(durable, wrap(expected))).toBe(0);
  });

  it('says why it failed, and can be begun again', async () => {
    const { backup, later } = await volume();
    const host = new CrashDisk();
    host.putFile('/a', wrap(later));
    host.putFile('/b', backup);
    host.faults.add({ operation: 'write', nth: 4, errno: 'EIO', path: '/a' });
    const words = ['luks', 'header-restore', '/a', '/b'];
    expect(await run(host, ...words)).toMatch(/^1 img: [^\n]*Input\/output error\n$/);
    expect(await run(host, ...words)).toBe('0 Header restored.\n');
    expect(await run(host, 'luks', 'header-restore', '--force', '/a', '/b')).toMatch(/^0/);
  });
});
