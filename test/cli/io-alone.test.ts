// SPDX-License-Identifier: Apache-2.0
// `blockwright io` by itself: its additions, its help, requests that run beside the commands, and
// what it leaves behind.
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { COMMANDS } from '../../src/cli/io/table.js';
import type { Outcome } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';

const SIZE = 1024 * 1024;

let folder = '';
let server: CommandServer;

function blockwright(words: readonly string[]): Outcome {
  const { out, err, status } = server.run(folder, words);
  return { out, err, status };
}

/** Commands on the file, without times. */
function io(words: readonly string[], ...commands: readonly string[]): Outcome {
  const each = commands.flatMap((command) => ['-c', command]);
  return blockwright(['io', '--no-timing', ...words, ...each]);
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-io-'));
  server = new CommandServer({ env: { TMPDIR: folder } });
});

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('blockwright io', () => {
  beforeEach(() => {
    writeFileSync(join(folder, 'raw'), Buffer.alloc(SIZE));
    const made = blockwright(['img', 'create', '-q', '-f', 'qcow2', 'image', '1M']);
    expect(made.status).toBe(0);
  });

  it('--no-timing leaves the same output in each run', () => {
    const run = (): Outcome => io(['-f', 'raw', 'raw'], 'write 0 1k', 'read -C 0 512', 'length');
    expect(run()).toEqual({
      out: 'wrote 1024/1024 bytes at offset 0\n1 KiB, 1 ops\n512,1\n1 MiB\n',
      err: '',
      status: 0,
    });
    expect(run()).toEqual(run());
  });

  it('lists and describes every command', () => {
    const { out } = io([], 'help');
    for (const { name, flags = [] } of COMMANDS) {
      expect(out).toContain(`\n${name} `.trimStart());
      const manual = io([], `help ${name}`).out;
      for (const { letter } of flags) expect(manual).toContain(`\n -${letter}`);
    }
  });

  it('its own help names what stands in the table of options', () => {
    const { out, status } = blockwright(['io', '--help']);
    expect(status).toBe(0);
    expect(blockwright(['io', 'raw', 'image'])).toEqual({ out, err: '', status: 1 });
    for (const option of ['--cmd', '--snapshot', '--image-opts', '--no-timing', '--force-share']) {
      expect(out).toContain(option);
    }
  });

  it('requests held at a breakpoint let others pass', () => {
    const { out, status } = io(
      ['blkdebug::image'],
      'write -q 0 64k',
      'break write_aio held',
      'aio_write -P 1 0 4k',
      'wait_break held',
      'aio_write -P 2 128k 4k',
      'aio_write -P 3 256k 4k',
      'read -P 2 128k 0',
      'sleep 200',
      'resume held',
      'aio_flush',
      'read -q -P 1 0 4k',
      'read -q -P 2 128k 4k',
      'read -q -P 3 256k 4k',
    );
    expect(status).toBe(0);
    const order = [...out.matchAll(/^(?:wrote .* offset (\d+)|blkdebug: (\w+))/gm)];
    const heard = order.map(([, offset, word]) => offset ?? word);
    expect(new Set(heard)).toEqual(new Set(['0', '131072', '262144', 'Resuming', 'Suspended']));
    expect(heard.indexOf('0')).toBeGreaterThan(heard.indexOf('Resuming'));
    expect(heard.indexOf('131072')).toBeLessThan(heard.indexOf('Resuming'));
    expect(heard.indexOf('262144')).toBeLessThan(heard.indexOf('Resuming'));
  });

  it('wait_break fails where nothing can come', () => {
    const { out, status } = io(['blkdebug::image'], 'break write_aio t', 'wait_break t', 'length');
    expect(out).toBe("Could not wait for a request: none is under way to be 't'\n1 MiB\n");
    expect(status).toBe(1);
  });

  it('what is held at the end is let go and written', () => {
    const commands = ['break write_aio t', 'aio_write -P 5 0 64k', 'wait_break t'];
    const held = io(['blkdebug::image'], ...commands);
    expect(held.status).toBe(0);
    expect(held.out).toContain("Resuming request 't'\nwrote 65536/65536 bytes at offset 0\n");
    expect(io(['image'], 'read -q -P 5 0 64k')).toEqual({ out: '', err: '', status: 0 });
  });

  it('a temporary overlay keeps the image and leaves nothing behind', () => {
    const before = readdirSync(folder);
    const { out } = io(['-s', 'image'], 'write -q 0 64k', 'read -q -P 0xcd 0 64k', 'alloc 0');
    expect(out).toBe('512/512 bytes allocated at offset 0 bytes\n');
    expect(readdirSync(folder)).toEqual(before);
    expect(io(['image'], 'alloc 0').out).toBe('0/512 bytes allocated at offset 0 bytes\n');
  });

  it('a read far beyond the end takes no memory for it', () => {
    const { out, status } = io(['-f', 'raw', 'raw'], 'read 0 2147483136');
    expect(out).toBe('read failed: Input/output error\n');
    expect(status).toBe(1);
  });

  it('one command that failed makes the status 1, and the others run', () => {
    const { out, status } = io(['image'], 'read 2M 1', 'read -q 0 1', 'quit', 'length');
    expect(out).toBe('read failed: Input/output error\n');
    expect(status).toBe(1);
  });
});
