// SPDX-License-Identifier: Apache-2.0
// The extension that names an image's LUKS header, and that header, broken one by one.
import { beforeAll, describe, expect, it } from 'vitest';

import { writeRequest } from '../../src/block/index.js';
import type { Graph } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { makeGraph } from '../helpers/job-stage.js';
import { createOn } from '../helpers/qcow2-create.js';
import { failureOf } from '../helpers/qcow2-node.js';

const CLUSTER = 4096;
/** Of the extension: its header, then offset and length. */
const EXTENSION = 112;
const CRYPT_METHOD = 35;

let sound: Uint8Array;
let crypt: number;

beforeAll(async () => {
  const host = new MemoryHost();
  const encrypt = {
    format: 'luks',
    'key-secret': 'k',
    'cipher-alg': 'aes-128',
    'iter-time': 0,
  } as const;
  await createOn(host, '/image', { size: 65_536, 'cluster-size': CLUSTER, encrypt });
  sound = host.fileContents('/image').slice();
  crypt = Number(new DataView(sound.buffer).getBigUint64(EXTENSION + 8));
});

function graphWith(change: (view: DataView) => void): Graph {
  const bytes = new Uint8Array(sound.length + CLUSTER);
  bytes.set(sound);
  change(new DataView(bytes.buffer));
  const host = new MemoryHost();
  host.putFile('/image', bytes);
  return makeGraph(host);
}

async function open(graph: Graph, readOnly = true): Promise<void> {
  const node = await graph.open({
    driver: 'qcow2',
    'read-only': readOnly,
    encrypt: { format: 'luks', 'key-secret': 'k' },
    file: { driver: 'file', filename: '/image' },
  } as never);
  await graph.close(node);
}

interface Row {
  readonly name: string;
  readonly change: (view: DataView) => void;
  readonly says: string;
}

const u64 = (at: number, value: bigint) => (view: DataView) => view.setBigUint64(at, value);
const u32 = (at: number, value: number) => (view: DataView) => view.setUint32(at, value);

const ROWS: readonly Row[] = [
  {
    name: 'missing',
    change: u32(EXTENSION, 0x12345678),
    says: 'Missing CRYPTO header for crypt method 2',
  },
  {
    name: 'of an image that is encrypted otherwise',
    change: (view) => view.setUint8(CRYPT_METHOD, 1),
    says: 'CRYPTO header extension only expected with LUKS encryption method',
  },
  {
    name: 'too short',
    change: u32(EXTENSION + 4, 8),
    says: 'CRYPTO header extension size 8, but expected size 16',
  },
  {
    name: 'within a cluster',
    change: (view) => view.setBigUint64(EXTENSION + 8, BigInt(crypt + 512)),
    says: "is not a multiple of cluster size '4096'",
  },
  {
    name: 'at the image header',
    change: u64(EXTENSION + 8, 0n),
    says: 'at offset 0 cannot be',
  },
  {
    name: 'behind the end of the file',
    change: u64(EXTENSION + 8, 1n << 40n),
    says: 'Encryption header is beyond the end of the file',
  },
  {
    name: 'at an offset that no file has',
    change: u64(EXTENSION + 8, 0xffff_ffff_ffff_f000n),
    says: 'Encryption header offset invalid',
  },
  { name: 'empty', change: u64(EXTENSION + 16, 0n), says: 'Encryption header of 0 bytes' },
  {
    name: 'huge',
    change: u64(EXTENSION + 16, 1n << 50n),
    says: `Encryption header of ${2 ** 50} bytes`,
  },
  {
    name: 'shorter than a header',
    change: u64(EXTENSION + 16, 100n),
    says: 'Request for data outside of extension header (592 bytes at 0 of 100)',
  },
  {
    name: 'shorter than its key material',
    change: u64(EXTENSION + 16, 5000n),
    says: 'Request for data outside of extension header',
  },
  {
    name: 'no LUKS header',
    change: (view) => view.setUint8(crypt, 0),
    says: 'Volume is not in LUKS format',
  },
  {
    name: 'with key material behind its end',
    change: (view) => {
      view.setUint32(crypt + 208 + 40, 0x00ff_ffff);
      view.setUint32(crypt + 104, 0x01ff_ffff);
    },
    says: 'Request for data outside of extension header',
  },
  {
    name: 'with key material behind its payload',
    change: (view) => view.setUint32(crypt + 208 + 40, 0x00ff_ffff),
    says: 'Keyslot 0 is overlapping with the encrypted payload',
  },
  {
    name: 'over the L1 table',
    change: (view) => view.setBigUint64(40, BigInt(crypt + CLUSTER)),
    says: 'Encryption header overlaps the active L1 table',
  },
  {
    name: 'over the snapshot table',
    change: (view) => {
      view.setUint32(60, 1);
      view.setBigUint64(64, BigInt(crypt + CLUSTER));
    },
    says: 'Encryption header overlaps the snapshot table',
  },
  {
    name: 'over the refcount table',
    change: (view) => view.setBigUint64(48, BigInt(crypt + CLUSTER)),
    says: 'Encryption header overlaps the refcount table',
  },
  {
    name: 'without a payload',
    change: (view) => view.setUint32(crypt + 104, 0),
    says: 'LUKS payload is overlapping with the header (payload_offset 0)',
  },
];

describe('the LUKS header of a qcow2 image', () => {
  it('opens the image as it was made', async () => {
    await open(graphWith(() => undefined), false);
  });

  for (const { name, change, says } of ROWS) {
    it(`is refused in one line: ${name}`, async () => {
      const failure = await failureOf(() => open(graphWith(change)));
      expect(failure?.message).toContain(says);
      expect(failure?.message).not.toContain('\n');
    });
  }

  it('that an L2 entry names as data is not written over', async () => {
    const graph = graphWith((view) => {
      const l1 = Number(view.getBigUint64(40));
      // An L2 table behind all else, with the header as data of the first guest cluster.
      const l2 = sound.length;
      view.setBigUint64(l1, (1n << 63n) | BigInt(l2));
      view.setBigUint64(l2, (1n << 63n) | BigInt(crypt));
    });
    const options = { encrypt: { format: 'luks', 'key-secret': 'k' } };
    const file = { driver: 'file', filename: '/image' };
    const node = await graph.open({ driver: 'qcow2', ...options, file } as never);
    const failure = await failureOf(async () => {
      await node.driverNode.write?.(writeRequest(0, new Uint8Array(512)));
    });
    expect(failure?.message).toContain('encryption header');
    await graph.closeAll();
  });
});
