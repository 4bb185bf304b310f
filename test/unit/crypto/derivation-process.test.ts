// SPDX-License-Identifier: Apache-2.0
// Derivations in a process of their own: its password goes through a pipe alone, it ends with who
// waits for it, and one that cannot be started is an error like any other.
import { execFileSync, spawn } from 'node:child_process';
import { pbkdf2Sync } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { deriveInProcess } from '../../../src/crypto/derivation/process.js';

const PROGRAM = new URL('../../../dist/crypto/derivation/process.js', import.meta.url).pathname;
const PASSWORD = 'PlantedPassword';
const wish = (iterations: number, length = 40) =>
  ({
    hash: 'sha512', password: Buffer.from(PASSWORD), salt: Buffer.from('PlantedSalt'),
    iterations, length,
  }) as const;

function ofProcess(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'latin1');
  } catch {
    return '';
  }
}

/** Those that run: not gone, nor gone but for who should ask how they ended. */
function childrenOf(parent: number): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number);
  return pids.filter((pid) => new RegExp(`\\) [^ZX] ${parent} `).test(ofProcess(pid, 'stat')));
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
    let child: number | undefined;
    while (child === undefined) {
      await turn();
      child = childrenOf(process.pid).find((pid) =>
        ofProcess(pid, 'cmdline').includes('derivation/program.js'),
      );
    }
    expect(ofProcess(child, 'cmdline') + ofProcess(child, 'environ')).not.toContain('Planted');
    stop();
    await expect(key).rejects.toMatchObject({ kind: 'cancelled' });
  });

  it('ends when that which waits for it is killed', async () => {
    const script = `
      const { deriveInProcess } = await import(process.argv[1]);
      const wish = { hash: 'sha512', password: Buffer.from('a'), salt: Buffer.from('b'),
        iterations: 2 ** 31 - 1, length: 64 };
      void deriveInProcess(wish).key;
      console.log('begun');
    `;
    const words = ['--input-type=module', '-e', script, PROGRAM];
    const parent = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(parent.stdout, 'data');
    const [child = 0] = childrenOf(parent.pid ?? 0);
    expect(ofProcess(child, 'cmdline')).toContain('derivation/program.js');
    const ended = once(parent, 'exit');
    parent.kill('SIGKILL');
    await ended;
    while (/\) [^ZX] /.test(ofProcess(child, 'stat'))) await turn();
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
    const node = [process.execPath, '--input-type=module', '-e', script, PROGRAM];
    const said = execFileSync('/bin/sh', ['-c', 'ulimit -n 60; exec "$@"', 'sh', ...node]);
    expect(said.toString()).toBe('io The process that derives a key ended without it\n');
  });
});
