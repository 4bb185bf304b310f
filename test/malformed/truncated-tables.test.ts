// SPDX-License-Identifier: Apache-2.0
// Files that end before their tables, sizes that are no whole sectors: info tells what the header
// says, check what is wrong; the data is refused and never read as zeroes.
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goldenImages, unpackGolden } from '../helpers/golden.js';
import type { GoldenFolder } from '../helpers/golden.js';
import { CommandServer } from '../helpers/command-server.js';
import { measureLine, misdeeds, refusalLines } from '../helpers/measured-run.js';
import type { MeasuredRun } from '../helpers/measured-run.js';

const server = new CommandServer();
const img = (...args: readonly string[]): MeasuredRun =>
  measureLine(server, ['img', ...args], folder);

let golden: GoldenFolder;
let folder: string;
beforeAll(() => {
  golden = unpackGolden(
    goldenImages.filter(({ file }) => /beyond-end|^v3-64k|^empty/.test(file)),
  );
  folder = mkdtempSync(join(tmpdir(), 'truncated-'));
});
afterAll(() => {
  server.close();
  golden.remove();
  rmSync(folder, { recursive: true, force: true });
});

describe('a file that ends before its tables', () => {
  for (const [file, field] of [
    ['hostile-l1-beyond-end.qcow2', 'l1_table_offset 4294967296'],
    ['hostile-refcount-table-beyond-end.qcow2', 'refcount_table_offset 4294967296'],
  ] as const) {
    it(`info tells its header, check finds it corrupt, its data is refused: ${file}`, () => {
      const path = join(golden.path, file);
      const info = img('info', '--output=json', path);
      const check = img('check', path);
      const map = img('map', '--output=json', path);
      const convert = img('convert', '-O', 'raw', path, 'out');
      for (const run of [info, check, map, convert]) expect(misdeeds(run)).toEqual([]);
      expect(info.status).toBe(0);
      expect(JSON.parse(info.output)).toMatchObject({ 'virtual-size': 1_048_576 });
      expect(check.status).toBe(2);
      expect(check.complaint).toContain('exceeding the end of the file');
      for (const run of [map, convert]) {
        expect(run.status).toBe(1);
        expect(refusalLines(run)).toHaveLength(1);
        expect(run.complaint).toContain(field);
        expect(run.complaint).toContain(path);
      }
    });
  }
});

describe('a virtual size that is no whole number of sectors', () => {
  it('is rounded down, as the reference does, wherever it is shown or read', () => {
    const path = join(golden.path, 'empty.qcow2');
    const descriptor = openSync(path, 'r+');
    writeSync(descriptor, Buffer.from('00000000000f0001', 'hex'), 0, 8, 24);
    closeSync(descriptor);
    const info = img('info', '--output=json', path);
    const map = img('map', '--output=json', path);
    expect(JSON.parse(info.output)).toMatchObject({ 'virtual-size': 983_040 });
    expect(JSON.parse(map.output)).toMatchObject([{ start: 0, length: 983_040 }]);
  });
});
