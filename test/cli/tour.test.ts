// SPDX-License-Identifier: Apache-2.0
// The tour as a user runs it, small: it must verify everything and leave nothing behind.
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { complaintsOf } from '../helpers/command-line.js';

const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tour-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Run {
  readonly status: number | null;
  readonly output: string;
  readonly complaint: string;
}

/** Runs the tour with its scratch folder inside ours; `onText` sees what is printed so far. */
function tour(
  args: readonly string[],
  onText: (text: string, interrupt: () => void, hangUp: () => void) => void = () => undefined,
): Promise<Run> {
  const child = spawn(process.execPath, [MAIN, 'tour', ...args], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  let complaint = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    const hangUp = (): void => void child.stdout.destroy();
    onText(output, () => void child.kill('SIGINT'), hangUp);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  return new Promise((resolve) => {
    child.once('close', (status) => {
      resolve({ status, output, complaint: complaintsOf(complaint) });
    });
  });
}

describe('the tour', () => {
  it('verifies convert, backup and stream, and removes its folder', async () => {
    const run = await tour(['--size', '12', '--progress', 'json']);
    expect(run.complaint).toBe('');
    const lines = run.output.trim().split('\n').map((line) => JSON.parse(line) as object);
    const results = lines.filter((line) => 'event' in line && line.event === 'result');
    expect(results).toHaveLength(3);
    for (const result of results) {
      expect(result).toMatchObject({ verified: expect.stringContaining('blockwright') as string });
    }
    expect(run.status).toBe(0);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('prints plain lines when piped, and takes sizes with a suffix', async () => {
    const run = await tour(['--size', '8M']);
    expect(run.output).not.toContain('\x1b');
    expect(run.output).toMatch(/backup: 100 %/);
    expect(run.output).toMatch(/^stream +8 MiB .*blockwright/m);
    expect(run.status).toBe(0);
  });

  it('removes its folder when it is interrupted', async () => {
    const run = await tour(['--size', '64', '--progress', 'json'], (text, interrupt) => {
      if (text.includes('"progress"')) interrupt();
    });
    expect(run.status).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('removes its folder when the reader of its output has gone', async () => {
    const run = await tour(['--size', '64'], (_text, _interrupt, hangUp) => hangUp());
    expect(run.status).toBe(141);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('gives its help on standard output', async () => {
    const help = await tour(['--help']);
    expect(help).toMatchObject({ status: 0, complaint: '' });
    expect(help.output).toMatch(/^usage: blockwright tour/);
  });

  it('refuses a size that is none', async () => {
    const run = await tour(['--size', 'big']);
    expect(run).toMatchObject({ status: 1, output: '' });
    expect(run.complaint).toMatch(/^blockwright tour: --size big: 1 to 1024 is wanted, in MiB\n$/);
  });
});
