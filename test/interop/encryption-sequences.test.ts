// SPDX-License-Identifier: Apache-2.0
// Random conversations about encrypted images, with a real daemon and with ours: the same answers,
// errors and events, of every seed that is played.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';

import { ENCRYPTED_FILES, encryptionSteps } from '../helpers/encryption-commands.js';
import { inQcow2, makeLuks } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { forEachSeed, runs } from '../helpers/seeds.js';
import type { Line } from '../helpers/transcript.js';

const STEPS = 40;
const MIB = 2 ** 20;
const PASSWORDS = [
  'first', undefined, 'second', 'first', undefined, 'nobody', 'second', 'second',
] as const;
const SEEDS = runs(1, 3 * Number(process.env['BLOCKWRIGHT_CAMPAIGN'] ?? 1));

/** Whether the answer of a command comes before the events of its job is chance. */
function withoutEmptyReplies(line: Line): Line | null {
  return JSON.stringify(line) === '{"return":{}}' ? null : namesInOneOrder(line);
}

describe.skipIf(!hasReference)('random conversations about encrypted images', () => {
  let folder = '';
  const made = new Map<string, Uint8Array>();
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'encryption-sequences-'));
    const create = (name: string, ...options: string[]): void => {
      const args = ['create', '-q', '-f', 'qcow2', ...options, name, '1M'];
      execFileSync(peer('qemu-img') as string, args, { cwd: folder });
      made.set(name, readFileSync(join(folder, name)));
    };
    create('plain');
    const secret = ['--object', 'secret,id=s0,data=first'];
    create('aes', ...secret, '-o', 'encrypt.format=aes,encrypt.key-secret=s0');
    for (const [alone, inside] of [['luks', 'inside'], ['copy', 'other']] as const) {
      const { bytes } = await makeLuks(PASSWORDS, { payload: MIB });
      made.set(alone, bytes);
      made.set(inside, inQcow2(bytes.subarray(0, bytes.length - MIB)));
    }
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('say the same to each command', () =>
    forEachSeed(SEEDS, (seed) =>
      compare(
        (directory) => [hello, ...encryptionSteps(seed, STEPS, directory)],
        withoutEmptyReplies,
        (directory) => {
          for (const name of ENCRYPTED_FILES) {
            writeFileSync(join(directory, name), made.get(name) ?? new Uint8Array(0));
          }
        },
      ),
    ));
});
