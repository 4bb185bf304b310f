// SPDX-License-Identifier: Apache-2.0
// The command line on hostile images: clear lines, an exit status that says so, no stack trace, no
// control characters on the terminal, and the image as it was.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { complaintsOf } from '../helpers/command-line.js';
import { type GoldenFolder, goldenImages, unpackGolden } from '../helpers/golden.js';

const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
/** Of the brief on bad input: no run may take longer. */
const TIMEOUT_MS = 10_000;

interface Run {
  readonly status: number | null;
  readonly output: string;
  readonly complaint: string;
}

function img(args: readonly string[]): Promise<Run> {
  const child = spawn(process.execPath, [MAIN, 'img', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
  });
  let output = '';
  let complaint = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
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

let folder: GoldenFolder;
beforeAll(() => {
  folder = unpackGolden();
});
afterAll(() => folder.remove());

describe('a hostile image on the command line', () => {
  for (const { file, sha256, proves } of goldenImages.filter((i) => i.status === 'hostile')) {
    it(`is refused or found corrupt: ${file}, ${proves}`, async () => {
      const path = join(folder.path, file);
      const target = `${path}.out`;
      const [check, convert] = await Promise.all([
        img(['check', '-f', 'qcow2', path]),
        img(['convert', '-f', 'qcow2', '-O', 'raw', path, target]),
      ]);
      rmSync(target, { force: true });
      expect([1, 2, 3].includes(check.status ?? -1) || convert.status === 1).toBe(true);
      for (const run of [check, convert]) {
        expect(run.status, 'ended by itself').not.toBeNull();
        expect(run.output + run.complaint).not.toMatch(/^\s+at .*:\d+:\d+/m);
        expect(run.output + run.complaint).toMatch(/^[^\p{Cc}]*(\r?\n[^\p{Cc}]*)*$/u);
      }
      if (convert.status !== 0) expect(convert.complaint.trimEnd().split('\n')).toHaveLength(1);
      expect(createHash('sha256').update(readFileSync(path)).digest('hex')).toBe(sha256);
    }, 25_000);
  }
});
