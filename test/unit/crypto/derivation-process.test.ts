// SPDX-License-Identifier: Apache-2.0
// Derivations in a process of their own: its password goes through a pipe alone, it ends with who
// waits for it, and one that cannot be started is an error like any other.
import { execFileSync } from 'node:child_process';
import { pbkdf2Sync } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { deriveInProcess } from '../../../src/crypto/derivation/process.js';

const PASSWORD = 'PlantedPassword';
const wish = (iterations: number, length = 40) =>
  ({
    hash: 'sha512', password: Buffer.from(PASSWORD), salt: Buffer.from('PlantedSalt'),
    iterations, length,
  }) as const;

/** Arguments and environment of each process that this one has started. */
function children(): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      const [, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(parent) !== process.pid) return [];
      return ['cmdline', 'environ'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'latin1'));
    } catch {
      return [];
    }
  });
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

describe('a process that derives', () => {
  it('gives the key, and wants the same password twice', async () => {
    const asked = wish(1000);
    const wanted = pbkdf2Sync(PASSWORD, asked.salt, 1000, 40, 'sha512');
    expect(Buffer.compare(await deriveInProcess(asked).key, wanted)).toBe(0);
    expect(asked.password.toString()).toBe(PASSWORD);
  });

  it('is told no password by arguments or environment', async () => {
    const { key, stop } = deriveInProcess(wish(2 ** 31 - 1));
    let seen: string[] = [];
    while (!seen.some((text) => text.includes('derivation/program.js'))) {
      await turn();
      seen = children();
    }
    expect(seen.join('\n')).not.toContain('Planted');
    stop();
    await expect(key).rejects.toMatchObject({ kind: 'cancelled' });
  });

  it('that cannot be started, for no file may be opened any more, is an error', () => {
    const script = `
      import { closeSync, openSync } from 'node:fs';
      const { deriveInProcess } = await import(process.argv[1]);
      let last;
      try { for (;;) last = openSync('/dev/null', 'r'); } catch {}
      closeSync(last);
      const wish = { hash: 'sha512', password: Buffer.from('a'), salt: Buffer.from('b'),
        iterations: 1, length: 8 };
      await deriveInProcess(wish).key.catch((error) => console.log(error.kind, error.message));
    `;
    const program = new URL('../../../dist/crypto/derivation/process.js', import.meta.url).pathname;
    const node = [process.execPath, '--input-type=module', '-e', script, program];
    const said = execFileSync('/bin/sh', ['-c', 'ulimit -n 60; exec "$@"', 'sh', ...node]);
    expect(said.toString()).toBe('io The process that derives a key ended without it\n');
  });
});
