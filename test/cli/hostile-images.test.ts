// SPDX-License-Identifier: Apache-2.0
// The command line on hostile images: clear lines, an exit status that says so, no stack trace, no
// control characters on the terminal, and the image as it was.
import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CommandServer } from '../helpers/command-server.js';
import { type GoldenFolder, goldenImages, unpackGolden } from '../helpers/golden.js';
import { measureLine, misdeeds, refusalLines } from '../helpers/measured-run.js';

const server = new CommandServer();
let folder: GoldenFolder;
beforeAll(() => {
  folder = unpackGolden();
});
afterAll(() => {
  server.close();
  folder.remove();
});

describe('a hostile image on the command line', () => {
  for (const { file, sha256, proves } of goldenImages.filter((i) => i.status === 'hostile')) {
    it(`is refused or found corrupt: ${file}, ${proves}`, () => {
      const path = join(folder.path, file);
      const target = `${path}.out`;
      const img = (...args: readonly string[]) =>
        measureLine(server, ['img', ...args], folder.path);
      const check = img('check', '-f', 'qcow2', path);
      const convert = img('convert', '-f', 'qcow2', '-O', 'raw', path, target);
      rmSync(target, { force: true });
      expect([1, 2, 3].includes(check.status ?? -1) || convert.status === 1).toBe(true);
      for (const run of [check, convert]) expect(misdeeds(run)).toEqual([]);
      if (convert.status !== 0) expect(refusalLines(convert)).toHaveLength(1);
      expect(createHash('sha256').update(readFileSync(path)).digest('hex')).toBe(sha256);
    });
  }
});
