// SPDX-License-Identifier: Apache-2.0
// Format-specific information of the golden images beside qemu-img info, supported or not.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readCryptHeader } from '../../src/drivers/formats/qcow2/encryption/index.js';
import { infoOf } from '../../src/drivers/formats/qcow2/info.js';
import { readBitmaps } from '../../src/drivers/formats/qcow2/bitmaps/index.js';
import { factsOf, readSnapshotTable } from '../../src/drivers/formats/qcow2/snapshot-table.js';
import { readHeader } from '../../src/drivers/formats/qcow2/structures.js';
import { MemoryHost } from '../../src/host/index.js';
import { goldenImages, unpackGolden } from '../helpers/golden.js';
import { fileChild } from '../helpers/host-file-node.js';
import { peer } from '../helpers/peers.js';

const qemuImg = peer('qemu-img');
const sound = goldenImages.filter(
  ({ format, status }) => format === 'qcow2' && status !== 'hostile',
);

interface Reference {
  readonly 'virtual-size': number;
  readonly 'cluster-size': number;
  readonly 'dirty-flag': boolean;
  readonly encrypted?: boolean;
  readonly 'backing-filename'?: string;
  readonly snapshots?: readonly Record<string, unknown>[];
  readonly 'format-specific': { readonly type: string; readonly data: Record<string, unknown> };
}

describe.skipIf(qemuImg === null)('info beside qemu-img info', () => {
  const folder = unpackGolden();
  afterAll(() => folder.remove());

  for (const { file } of sound) {
    it(`says the same of ${file}`, async () => {
      const path = join(folder.path, file);
      const run = spawnSync(qemuImg ?? '', ['info', '--output=json', path], { encoding: 'utf8' });
      const theirs = JSON.parse(run.stdout) as Reference;
      const host = new MemoryHost();
      host.putFile(path, readFileSync(path));
      const { node } = await fileChild(host, path);
      const header = await readHeader(node);
      const snapshots = (await readSnapshotTable(node, header)).snapshots.map(factsOf);
      const place = header.cryptHeader;
      const luks = place === null ? null : (await readCryptHeader({ node }, place)).header;
      const ours = infoOf(header, { snapshots, bitmaps: await readBitmaps(node, header), luks });
      expect(header.fields.size).toBe(theirs['virtual-size']);
      expect(header.backingFile ?? undefined).toBe(theirs['backing-filename']);
      expect(ours.clusterSize).toBe(theirs['cluster-size']);
      expect(ours.dirty).toBe(theirs['dirty-flag']);
      expect(ours.encrypted).toBe(theirs.encrypted);
      const data = { ...theirs['format-specific'].data };
      expect(ours.specific).toEqual({ type: 'qcow2', data });
      expect(Object.keys(ours.specific?.data ?? {})).toEqual(Object.keys(data));
      expect(snapshots.map((facts) => ({
        icount: facts.icount,
        'vm-clock-nsec': facts.vmClockNanoseconds,
        name: facts.name,
        'date-sec': facts.dateSeconds,
        'date-nsec': facts.dateNanoseconds,
        'vm-clock-sec': facts.vmClockSeconds,
        id: facts.id,
        'vm-state-size': facts.vmStateSize,
      }))).toEqual(theirs.snapshots ?? []);
    });
  }
});
