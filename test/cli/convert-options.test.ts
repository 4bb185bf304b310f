// SPDX-License-Identifier: Apache-2.0
// The options of `img convert` beside the real qemu-img: refusals in their order, targets named by
// options, salvage of what cannot be read; and standard input, which is an addition.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { complaintsOf } from '../helpers/command-line.js';
import { peer } from '../helpers/peers.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;
const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;

const T = 'driver=raw,file.driver=file,file.filename=t';
const BAD =
  'driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=bad,' +
  [300, 301, 1000]
    .map((sector, at) => `inject-error.${at}.event=read_aio,inject-error.${at}.sector=${sector}`)
    .flatMap((rule, at) => [...rule.split(','), `inject-error.${at}.once=off`])
    .map((word) => `file.${word}`)
    .join(',');

const LINES = [
  'convert -C -O raw a o1',
  'convert -C -c -S 4k --target-image-opts --skip-broken-bitmaps a x',
  'convert -C -c -S 4k --target-image-opts -o help a x',
  'convert -C -S 0 --salvage a x',
  'convert -C --salvage a x',
  'convert --target-image-opts --target-is-zero a x',
  'convert -n -o cluster_size=4k --target-is-zero a x',
  'convert --target-is-zero a x',
  `convert -n --target-image-opts a ${T}`,
  `convert -n --target-image-opts -O raw a ${T}`,
  `convert -n --target-image-opts -c a ${T}`,
  `convert -n --target-image-opts a ${T}2`,
  'convert -n --target-image-opts a t',
  'convert --image-opts -n --target-image-opts driver=qcow2,file.filename=a file.filename=t',
  `convert -n --target-is-zero --target-image-opts -W -m 3 -r 1G a ${T}`,
  'convert --salvage -O qcow2 a o2',
  `convert --image-opts --salvage -O raw ${BAD} o3`,
  `convert --image-opts --salvage -q -O qcow2 ${BAD} o4`,
  `convert --image-opts -O raw ${BAD} o5`,
];
const MADE = ['o1', 'o3', 't', 'o2', 'o4'];

describe.skipIf(isMissing)('img convert beside the real one', () => {
  let twins: TwinFolders;
  beforeAll(() => {
    twins = new TwinFolders();
    twins.make([
      'qemu-img create -q -f qcow2 a 1M',
      "qemu-io -c 'write -P 3 64k 192k' a",
      'qemu-img create -q -f raw t 1M',
    ]);
    const bad = Buffer.alloc(1 << 20, 'bytes that are no zeroes, ');
    writeFileSync(join(twins.theirs, 'bad'), bad);
    twins.split();
  });
  afterAll(() => twins.remove());

  it.each(LINES)('%s', (line) => {
    expect(twins.shim(`qemu-img ${line}`)).toEqual(twins.real(`qemu-img ${line}`));
  });

  it('leaves the same images', () => {
    for (const name of MADE) {
      const [theirs, ours] = [join(twins.theirs, name), join(twins.ours, name)];
      const { status, out } = twins.real(`qemu-img compare ${theirs} ${ours}`);
      expect({ name, status, out }).toEqual({ name, status: 0, out: 'Images are identical.\n' });
    }
  });

  it('takes a dash for standard input, raw unless told, and leaves no file behind', () => {
    const convert = (input: Buffer, ...words: readonly string[]) => {
      const args = [PROGRAM, 'img', 'convert', ...words];
      const options = { cwd: twins.ours, input, encoding: 'utf8' } as const;
      const { status, stderr } = spawnSync(process.execPath, args, options);
      return { status, stderr: complaintsOf(stderr) };
    };
    const kept = (): string[] =>
      readdirSync(tmpdir()).filter((name) => name.startsWith('blockwright-input-'));
    const before = kept();
    const image = readFileSync(join(twins.ours, 'a'));
    expect(convert(image, '-', 'i1')).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(join(twins.ours, 'i1')).equals(image)).toBe(true);
    expect(convert(image, '-f', 'qcow2', '-O', 'raw', '-', 'i2')).toMatchObject({ status: 0 });
    expect(twins.real(`qemu-img compare i2 a`, twins.ours).status).toBe(0);
    expect(convert(Buffer.from('no image'), '-f', 'qcow2', '-', 'i3')).toMatchObject({ status: 1 });
    expect(kept()).toEqual(before);
  });
});
