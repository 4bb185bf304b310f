// SPDX-License-Identifier: Apache-2.0
// Every rule of the qcow2 header broken once gives one clear error naming field and value.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BlockError, rulesOf } from '../../src/base/index.js';
import { encryptionOf } from '../../src/drivers/formats/qcow2/encryption/index.js';
import { requireWritable } from '../../src/drivers/formats/qcow2/features.js';
import { encodeExtensions } from '../../src/drivers/formats/qcow2/header.js';
import type { Qcow2Header } from '../../src/drivers/formats/qcow2/header.js';
import { HEADER } from '../../src/drivers/formats/qcow2/layout.js';
import { readHeader } from '../../src/drivers/formats/qcow2/structures.js';
import { MemoryHost } from '../../src/host/index.js';
import { goldenImages, unpackGolden } from '../helpers/golden.js';
import { fileChild } from '../helpers/host-file-node.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { createdBytes } from '../helpers/qcow2-create.js';

const MIB = 1024 * 1024;

async function headerOf(bytes: Uint8Array): Promise<Qcow2Header> {
  const host = new MemoryHost();
  host.putFile('/image', bytes);
  const { node } = await fileChild(host, '/image');
  return readHeader(node);
}

async function refusal(bytes: Uint8Array): Promise<BlockError> {
  try {
    await headerOf(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    return error as BlockError;
  }
  throw new Error('the header was accepted');
}

function put(bytes: Uint8Array, at: { offset: number; size: number }, value: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (at.size === 4) view.setUint32(at.offset, value);
  else view.setBigUint64(at.offset, BigInt(value));
}

function expectOneLine(message: string): void {
  // oxlint-disable-next-line no-control-regex -- nothing may drive a terminal
  expect(message).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  expect(message.length).toBeLessThan(300);
}

describe('rules of the header table', () => {
  for (const version of [2, 3] as const) {
    const length = version === 2 ? 72 : 104;
    for (const rule of rulesOf(HEADER, { version, length })) {
      it(`v${version}: ${rule.json} ${rule.badValue} breaks ${rule.rule}`, async () => {
        const options = { size: MIB, version: version === 2 ? 'v2' : 'v3' } as const;
        const bytes = await createdBytes(options);
        put(bytes, rule, rule.badValue);
        const error = await refusal(bytes);
        expect(error.kind).toBe('corrupt-image');
        // Another format altogether is refused in the reference's words.
        const words = `(${rule.json} ${rule.badValue})`;
        const other = 'Image is not in qcow2 format';
        expect(error.message).toContain(rule.json === 'magic' ? other : words);
        expectOneLine(error.message);
      });
    }
  }
});

interface Cross {
  readonly name: string;
  readonly pokes: readonly (readonly [offset: number, size: 1 | 4 | 8, value: bigint])[];
  readonly says: string;
}

const CROSS: readonly Cross[] = [
  {
    name: 'a header longer than its cluster',
    pokes: [[100, 4, 65_544n]],
    says: 'qcow2 header exceeds cluster size (header_length 65544)',
  },
  {
    name: 'a backing name outside cluster 0',
    pokes: [[8, 8, 65_537n], [16, 4, 1n]],
    says: 'Invalid backing file offset (backing_file_offset 65537)',
  },
  {
    name: 'a backing name inside the header',
    pokes: [[8, 8, 8n], [16, 4, 1n]],
    says: 'Invalid backing file offset (backing_file_offset 8)',
  },
  {
    name: 'a backing name that is too long',
    pokes: [[8, 8, 512n], [16, 4, 1024n]],
    says: 'Backing file name too long (backing_file_size 1024)',
  },
  {
    name: 'a backing name across the end of cluster 0',
    pokes: [[8, 8, 65_530n], [16, 4, 100n]],
    says: 'Backing file name too long (backing_file_size 100)',
  },
  {
    name: 'a size of 2^63',
    pokes: [[24, 8, 1n << 63n]],
    says: 'Image is too big (size 0x8000000000000000)',
  },
  {
    name: 'a size of 2^53 - 1',
    pokes: [[24, 8, (1n << 53n) - 1n]],
    says: 'Image is too big (size 9007199254740991)',
  },
  {
    name: 'an L1 table that is too small',
    pokes: [[24, 8, 1n << 40n]],
    says: 'L1 table is too small (l1_size 1, size 1099511627776)',
  },
  {
    name: 'an unaligned L1 table',
    pokes: [[40, 8, 0x30001n]],
    says: 'Active L1 table offset invalid (l1_table_offset 196609)',
  },
  {
    name: 'an L1 table beyond the end',
    pokes: [[40, 8, 1n << 40n]],
    says: 'Active L1 table is beyond the end of the file',
  },
  {
    name: 'an L1 table whose end overflows',
    pokes: [[40, 8, (1n << 53n) - 65_536n]],
    says: 'Active L1 table',
  },
  {
    name: 'an L1 offset of 2^63',
    pokes: [[40, 8, 1n << 63n]],
    says: 'Active L1 table offset invalid (l1_table_offset 0x8000000000000000)',
  },
  {
    name: 'an L1 table over the largest size',
    pokes: [[36, 4, 0xffff_ffffn]],
    says: 'Active L1 table too large (l1_size 4294967295)',
  },
  {
    name: 'a refcount table over the largest size',
    pokes: [[56, 4, 129n]],
    says: 'Reference count table too large (refcount_table_clusters 129)',
  },
  {
    name: 'a huge refcount table',
    pokes: [[56, 4, 0xffff_ffffn]],
    says: 'Reference count table too large (refcount_table_clusters 4294967295)',
  },
  {
    name: 'an unaligned refcount table',
    pokes: [[48, 8, 1n]],
    says: 'Reference count table offset invalid (refcount_table_offset 1)',
  },
  {
    name: 'a refcount table beyond the end',
    pokes: [[48, 8, 1n << 40n]],
    says: 'Reference count table is beyond the end of the file',
  },
  {
    name: 'no place for the refcount table',
    pokes: [[48, 8, 0n]],
    says: 'Reference count table offset invalid (refcount_table_offset 0)',
  },
  {
    name: 'an unaligned snapshot table',
    pokes: [[60, 4, 1n], [64, 8, 0x30008n]],
    says: 'Snapshot table offset invalid (snapshots_offset 196616)',
  },
  {
    name: 'an unaligned snapshot table without snapshots',
    pokes: [[64, 8, 8n]],
    says: 'Snapshot table offset invalid (snapshots_offset 8)',
  },
  {
    name: 'a snapshot table beyond the end',
    pokes: [[60, 4, 1n], [64, 8, 1n << 40n]],
    says: 'Snapshot table is beyond the end of the file',
  },
  {
    name: 'an unknown bit whose name is cut short by the end of the table',
    pokes: [
      [72, 4, 1n << 31n],
      [100, 4, 104n],
      [104, 4, 0x6803_f857n],
      [108, 4, 5n],
      [112, 8, 0x003f_6269_7400_0000n],
      [120, 8, 0n],
    ],
    says: 'Unsupported qcow2 feature(s): bit (',
  },
  {
    name: 'unknown incompatible bits',
    pokes: [[72, 4, 1n << 31n], [76, 4, 96n]],
    says: 'Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000060',
  },
  {
    name: 'a compression type without its bit',
    pokes: [[104, 1, 1n]],
    says: 'Compression type incompatible feature bit must be set (compression_type 1)',
  },
  {
    name: 'a compression bit without its type',
    pokes: [[76, 4, 8n]],
    says: 'Compression type incompatible feature bit must not be set (compression_type 0)',
  },
  {
    name: 'an unknown compression type',
    pokes: [[76, 4, 8n], [104, 1, 2n]],
    says: 'unknown compression type: 2',
  },
  {
    name: 'an extension without end',
    pokes: [[0x74, 4, 0xffff_ffffn]],
    says: 'Header extension too large (extension 0x6803f857 length 4294967295)',
  },
  {
    name: 'an extension across the end of cluster 0',
    pokes: [[0x74, 4, 65_535n]],
    says: 'Header extension too large (extension 0x6803f857 length 65535)',
  },
  {
    name: 'a backing format that is too long',
    pokes: [[0x70, 4, 0xe279_2acan]],
    says: 'ext_backing_format: len=384 too large (>=16)',
  },
  {
    name: 'a bitmaps extension of the wrong length',
    pokes: [[0x70, 4, 0x2385_2875n]],
    says: 'bitmaps_ext: Invalid extension length (length 384)',
  },
];

describe('rules between fields', () => {
  for (const { name, pokes, says } of CROSS) {
    it(`refuses ${name}`, async () => {
      const bytes = await createdBytes({ size: MIB });
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      for (const [offset, size, value] of pokes) {
        if (size === 8) view.setBigUint64(offset, value);
        else if (size === 4) view.setUint32(offset, Number(value));
        else view.setUint8(offset, Number(value));
      }
      const error = await refusal(bytes);
      expect(error.message).toContain(says);
      expectOneLine(error.message);
    });
  }

  it('names an unknown feature from the table and escapes its control bytes', async () => {
    const bytes = await createdBytes({ size: MIB });
    bytes.set([0, 5], 0x78);
    bytes.set(Buffer.from('evil \u001b[31m\u0007feature\0'), 0x7a);
    bytes[79] = 32;
    const error = await refusal(bytes);
    expect(error.message).toContain('evil \\x1b[31m\\x07feature');
    expectOneLine(error.message);
  });

  it('refuses more extensions than the limit', async () => {
    const bytes = await createdBytes({ size: MIB });
    const many = Array.from({ length: 300 }, () => ({ type: 7, data: new Uint8Array(0) }));
    bytes.set(encodeExtensions(many), 112);
    expect((await refusal(bytes)).message).toBe('Too many header extensions (more than 256)');
  });

  it('refuses every truncation of the tables and never reads past the end', async () => {
    const bytes = await createdBytes({ size: MIB });
    const lengths = [0, 3, 4, 8, 71, 72, 103, 104, 111, 112, 400, 511, 65_536, 131_071, 196_615];
    for (const length of lengths) {
      const error = await refusal(bytes.subarray(0, length));
      expect(error.kind).toBe('corrupt-image');
      expectOneLine(error.message);
    }
  });

  it('takes no length of a backing name where there is none', async () => {
    const bytes = await createdBytes({ size: MIB });
    bytes.set([0xff, 0xff, 0, 0], 16);
    expect(await headerOf(bytes)).toMatchObject({ backingFile: null });
  });

  it('takes fields that version 2 does not have from nowhere', async () => {
    const bytes = await createdBytes({ size: MIB, version: 'v2' });
    // Bytes 72 to 111 are extensions and names in version 2, whatever they look like.
    bytes.set(encodeExtensions([{ type: 0x99, data: new Uint8Array(24).fill(0xff) }]), 72);
    const { fields, extensions } = await headerOf(bytes);
    expect(fields.incompatibleFeatures).toEqual({ hi: 0, lo: 0 });
    expect([fields.refcountOrder, fields.headerLength, fields.compressionType]).toEqual([4, 72, 0]);
    expect(extensions).toHaveLength(1);
  });
});

describe('golden images', () => {
  const folder = unpackGolden();
  afterAll(() => folder.remove());
  const read = (file: string): Uint8Array => readFileSync(join(folder.path, file));

  for (const image of goldenImages.filter(({ format }) => format === 'qcow2')) {
    it(`${image.file} is ${image.status}: ${image.proves}`, async () => {
      const bytes = read(image.file);
      if (image.status === 'supported') {
        const header = await headerOf(bytes);
        expect(encryptionOf(header)).toBe(image.secret === undefined ? null : 'luks');
        if (image.virtualSize !== undefined) expect(header.fields.size).toBe(image.virtualSize);
        return;
      }
      if (image.status === 'unsupported') {
        const header = await headerOf(bytes);
        if (header.geometry.dataFile) {
          expect(header.dataFile).toBe(image.refusal);
          return;
        }
        const writable = (): void => requireWritable(header, { path: image.file });
        const reason = messageOf(writable);
        expect(reason.toLowerCase()).toContain((image.refusal ?? '').toLowerCase());
        expectOneLine(reason);
        return;
      }
      try {
        const header = await headerOf(bytes);
        if (encryptionOf(header) === null) await checkBytes(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(BlockError);
        expectOneLine((error as BlockError).message);
      }
    });
  }
});

function messageOf(action: () => void): string {
  try {
    action();
  } catch (error) {
    return (error as Error).message;
  }
  return '';
}
