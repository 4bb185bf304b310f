// SPDX-License-Identifier: Apache-2.0
import type { Driver, Graph } from '../../src/block/index.js';
import { copyBeforeWrite } from '../../src/drivers/filters/copy-before-write/index.js';
import { copyOnRead } from '../../src/drivers/filters/copy-on-read/index.js';
import { blklogwrites } from '../../src/drivers/filters/blklogwrites/index.js';
import { blkverify } from '../../src/drivers/filters/blkverify/index.js';
import { compress } from '../../src/drivers/filters/compress/index.js';
import { blkdebug } from '../../src/drivers/filters/blkdebug/index.js';
import { preallocate } from '../../src/drivers/filters/preallocate/index.js';
import { quorum } from '../../src/drivers/filters/quorum/index.js';
import { throttle } from '../../src/drivers/filters/throttle/index.js';
import { ThrottleGroup } from '../../src/block/throttle/index.js';
import { qcow2Driver } from '../../src/drivers/formats/qcow2/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import { nullAioDriver } from '../../src/drivers/protocols/null-co/index.js';
import { makeFile, type MemoryHost } from '../helpers/graph.js';
import { luksFile, luksWithPassword, XTS } from '../helpers/luks.js';
import { describeDriver } from './describe-driver.js';

const KIB = 1024;

describeDriver({
  name: 'file',
  size: 300 * KIB,
  stores: true,
  async create(host) {
    await makeFile(host, '/disk', 300 * KIB);
    return { driver: 'file', filename: '/disk' };
  },
});

describeDriver({
  name: 'file opened direct',
  size: 300 * KIB,
  stores: true,
  async create(host) {
    await makeFile(host, '/disk', 300 * KIB);
    return { driver: 'file', filename: '/disk', cache: { direct: true } };
  },
});

describeDriver({
  name: 'raw',
  size: 256 * KIB,
  stores: true,
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    return { driver: 'raw', file: { driver: 'file', filename: '/disk' } };
  },
});

describeDriver({
  name: 'raw with offset and size',
  size: 200 * KIB,
  stores: true,
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    const window = { offset: 10 * KIB, size: 200 * KIB };
    return { driver: 'raw', file: { driver: 'file', filename: '/disk' }, ...window };
  },
});

for (const [mode, spec] of Object.entries<CipherSpec>({
  xts: XTS,
  'cbc with essiv': { cipher: 'aes-128', mode: 'cbc', ivGenerator: 'essiv', ivHash: 'sha256' },
})) {
  describeDriver({
    name: `luks in ${mode}`,
    size: 256 * KIB,
    stores: true,
    drivers: [luksWithPassword()],
    async create(host) {
      await makeFile(host, '/disk', await luksFile(256 * KIB, spec));
      return { driver: 'luks', 'key-secret': 's', file: { driver: 'file', filename: '/disk' } };
    },
  });
}

describeDriver({
  name: 'null-co',
  size: 256 * KIB,
  stores: false,
  create: () => Promise.resolve({ driver: 'null-co', size: 256 * KIB, 'read-zeroes': true }),
});

describeDriver({
  name: 'qcow2',
  size: 512 * KIB,
  stores: true,
  drivers: [qcow2Driver as unknown as Driver<never>],
  async create(host, graph) {
    await makeQcow2(host, graph);
    return { driver: 'qcow2', file: { driver: 'file', filename: '/disk' } };
  },
});

describeDriver({
  name: 'copy-before-write',
  size: 256 * KIB,
  stores: true,
  drivers: [copyBeforeWrite as unknown as Driver<never>],
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    await makeFile(host, '/target', 256 * KIB);
    const plain = (filename: string): object => ({
      driver: 'raw',
      'read-only': false,
      file: { driver: 'file', filename },
    });
    return { driver: 'copy-before-write', file: plain('/disk'), target: plain('/target') };
  },
});

describeDriver({
  name: 'copy-on-read',
  size: 256 * KIB,
  stores: true,
  drivers: [copyOnRead as unknown as Driver<never>],
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    const below = { driver: 'file', filename: '/disk' };
    return { driver: 'copy-on-read', file: { driver: 'raw', 'read-only': false, file: below } };
  },
});

describeDriver({
  name: 'blkdebug',
  size: 256 * KIB,
  stores: true,
  drivers: [blkdebug as unknown as Driver<never>],
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    const image = { driver: 'raw', file: { driver: 'file', filename: '/disk' } };
    return { driver: 'blkdebug', image };
  },
});

describeDriver({
  name: 'blkdebug with limits, over a size that does not fit them',
  size: 250 * KIB + 512,
  stores: true,
  drivers: [blkdebug as unknown as Driver<never>],
  async create(host) {
    await makeFile(host, '/disk', 250 * KIB + 512);
    const image = { driver: 'raw', file: { driver: 'file', filename: '/disk' } };
    return {
      driver: 'blkdebug',
      image,
      align: 4096,
      'max-transfer': 16_384,
      'opt-write-zero': 8192,
      'max-write-zero': 32_768,
      'opt-discard': 16_384,
      'max-discard': 49_152,
    };
  },
});

describeDriver({
  name: 'blkverify',
  size: 256 * KIB,
  stores: true,
  drivers: [blkverify as unknown as Driver<never>],
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    await makeFile(host, '/raw', 256 * KIB);
    const plain = (filename: string): object => ({
      driver: 'raw',
      file: { driver: 'file', filename },
    });
    return { driver: 'blkverify', test: plain('/disk'), raw: plain('/raw') };
  },
});

describeDriver({
  name: 'blklogwrites',
  size: 256 * KIB,
  stores: true,
  drivers: [blklogwrites as unknown as Driver<never>],
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    await makeFile(host, '/log', 0);
    const file = { driver: 'raw', file: { driver: 'file', filename: '/disk' } };
    return { driver: 'blklogwrites', file, log: { driver: 'file', filename: '/log' } };
  },
});

describeDriver({
  name: 'compress',
  size: 512 * KIB,
  stores: true,
  drivers: [qcow2Driver, compress].map((one) => one as unknown as Driver<never>),
  async create(host, graph) {
    await makeQcow2(host, graph);
    const file = { driver: 'qcow2', file: { driver: 'file', filename: '/disk' } };
    return { driver: 'compress', file };
  },
});

describeDriver({
  name: 'null-aio',
  size: 256 * KIB,
  stores: false,
  drivers: [nullAioDriver as unknown as Driver<never>],
  create: () => Promise.resolve({ driver: 'null-aio', size: 256 * KIB, 'read-zeroes': true }),
});

for (const readPattern of ['quorum', 'fifo']) {
  describeDriver({
    name: `quorum reading by ${readPattern}`,
    size: 256 * KIB,
    stores: true,
    drivers: [quorum as unknown as Driver<never>],
    async create(host) {
      const children = ['/disk', '/second', '/third'].map((filename) => ({
        driver: 'raw',
        file: { driver: 'file', filename },
      }));
      for (const { file } of children) await makeFile(host, file.filename, 256 * KIB);
      const options = { 'vote-threshold': 2, 'read-pattern': readPattern };
      return { driver: 'quorum', children, ...options };
    },
  });
}

describeDriver({
  name: 'preallocate',
  size: 256 * KIB,
  stores: true,
  drivers: [preallocate as unknown as Driver<never>],
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    return { driver: 'preallocate', file: { driver: 'file', filename: '/disk' } };
  },
});

const FILE = { driver: 'file', filename: '/disk' };

for (const [filter, file] of Object.entries({
  blkdebug: { driver: 'blkdebug', image: FILE },
  throttle: { driver: 'throttle', 'throttle-group': 'g', file: FILE },
  'copy-on-read': { driver: 'copy-on-read', file: { ...FILE, 'read-only': false } },
  'copy-before-write': {
    driver: 'copy-before-write',
    file: { ...FILE, 'read-only': false },
    target: { driver: 'null-co', 'read-only': false, size: 2 ** 20 },
  },
  preallocate: { driver: 'preallocate', 'prealloc-size': 300 * KIB, file: FILE },
  quorum: { driver: 'quorum', 'vote-threshold': 1, children: [FILE] },
})) {
  describeDriver({
    name: `qcow2 over ${filter}`,
    size: 512 * KIB,
    stores: true,
    drivers: [qcow2Driver, blkdebug, copyOnRead, copyBeforeWrite, preallocate, quorum]
      .map((one) => one as unknown as Driver<never>)
      .concat(inUnlimitedGroup()),
    async create(host, graph) {
      await makeQcow2(host, graph);
      return { driver: 'qcow2', file };
    },
  });
}

describeDriver({
  name: 'throttle',
  size: 256 * KIB,
  stores: true,
  drivers: [inUnlimitedGroup()],
  async create(host) {
    await makeFile(host, '/disk', 256 * KIB);
    const file = { driver: 'raw', file: { driver: 'file', filename: '/disk' } };
    return { driver: 'throttle', 'throttle-group': 'g', file };
  },
});

function inUnlimitedGroup(): Driver<never> {
  const driver: typeof throttle = {
    ...throttle,
    open(context, options) {
      const group = new ThrottleGroup('g', context.host.clock);
      return throttle.open({ ...context, throttleGroup: () => group }, options);
    },
  };
  return driver as unknown as Driver<never>;
}

async function makeQcow2(host: MemoryHost, graph: Graph): Promise<void> {
  await makeFile(host, '/disk', 0);
  const file = await graph.open({ driver: 'file', 'node-name': 'new', filename: '/disk' });
  const user = await graph.attach(file, 'create', { taken: 11, shared: 15 });
  await qcow2Driver.create?.(
    { host, node: () => Promise.resolve(file) },
    { file: 'new', size: 512 * KIB },
  );
  await user.detach();
  await graph.close(file);
}
