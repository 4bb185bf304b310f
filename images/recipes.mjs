// SPDX-License-Identifier: Apache-2.0
// How each golden image is made and what it proves. Pure data: generate.mjs runs it.
//
// `secret` is the option that names the secret of an encrypted image, whose data is `golden`.
// `refusal` is a word (any case) that the one line of a refusal contains. `readOnlyWorks` marks
// images that open read-only and are refused read-write.

import { deflateRawSync } from 'node:zlib';

const io = (file, ...commands) =>
  `qemu-io -f qcow2 ${commands.map((command) => `-c '${command}'`).join(' ')} ${file}`;
const create = (file, options, size) => `qemu-img create -q -f qcow2 -o ${options} ${file} ${size}`;
const overlay = (file, base, format, options = 'cluster_size=4096') =>
  `qemu-img create -q -f qcow2 -o ${options} -b ${base} -F ${format} ${file}`;

function plain(name, options, proves, size = '1M') {
  const file = `${name}.qcow2`;
  const writes = io(
    file,
    'write -P 0x11 0 4096',
    'write -P 0x22 65000 70000',
    'write -P 0x33 524288 131072',
    'write -P 0x44 1048064 512',
  );
  return { file, format: 'qcow2', proves, commands: [create(file, options, size), writes] };
}

export const SUPPORTED = [
  plain('v2-4k', 'compat=0.10,cluster_size=4096', 'version 2 header of 72 bytes'),
  plain('v3-512', 'cluster_size=512', 'smallest cluster, many L2 tables and refcount blocks'),
  plain('v3-4k', 'cluster_size=4096', 'version 3 with small clusters'),
  plain('v3-64k', 'cluster_size=65536', 'the default geometry'),
  plain('v3-2m', 'cluster_size=2097152', 'largest cluster', '9M'),
  plain('v3-refcount-1', 'cluster_size=4096,refcount_bits=1', 'refcounts of one bit'),
  plain('v3-refcount-2', 'cluster_size=4096,refcount_bits=2', 'refcounts of two bits'),
  plain('v3-refcount-64', 'cluster_size=4096,refcount_bits=64', 'refcounts of eight bytes'),
  plain('v3-lazy', 'cluster_size=4096,lazy_refcounts=on', 'lazy refcounts, closed cleanly'),
  plain('v3-odd-size', 'cluster_size=4096', 'size that is no multiple of the cluster', '1049088'),
  {
    file: 'empty.qcow2',
    format: 'qcow2',
    proves: 'no L2 table at all',
    commands: [create('empty.qcow2', 'cluster_size=4096', '16M')],
  },
  {
    file: 'large-sparse.qcow2',
    format: 'qcow2',
    proves: 'metadata preallocated, every cluster allocated and unwritten',
    commands: [create('large-sparse.qcow2', 'cluster_size=65536,preallocation=metadata', '2M')],
  },
  {
    file: 'plain.raw',
    format: 'raw',
    proves: 'raw content, a size that is a multiple of 512 only',
    commands: ['pattern plain.raw 33280 7', 'truncate plain.raw 131584'],
  },
  {
    file: 'compressed.qcow2',
    format: 'qcow2',
    proves: 'deflate-compressed clusters that share host clusters, some stored plain',
    commands: [
      'pattern source.raw 40000 3',
      'truncate source.raw 524288',
      "qemu-io -f raw -c 'write -P 0x55 65536 262144' -c 'write -P 0x66 400000 1000' source.raw",
      'qemu-img convert -c -f raw -O qcow2 -o cluster_size=4096 source.raw compressed.qcow2',
    ],
  },
  {
    file: 'compressed-64k.qcow2',
    format: 'qcow2',
    proves: 'compressed clusters of 64 KiB, one of them overwritten plain',
    commands: [
      'pattern source.raw 20000 9',
      'truncate source.raw 393216',
      "qemu-io -f raw -c 'write -P 0x57 65536 200000' source.raw",
      'qemu-img convert -c -f raw -O qcow2 source.raw compressed-64k.qcow2',
      io('compressed-64k.qcow2', 'write -P 0x58 131072 3000'),
    ],
  },
  {
    file: 'zeroes.qcow2',
    format: 'qcow2',
    proves: 'zero clusters with and without a host cluster, over a backing file',
    needs: ['v3-4k.qcow2'],
    commands: [
      overlay('zeroes.qcow2', 'v3-4k.qcow2', 'qcow2'),
      io('zeroes.qcow2', 'write -P 0x71 524288 65536', 'write -z 532480 8192'),
      io('zeroes.qcow2', 'write -z -u 573440 8192', 'write -z 0 4096', 'discard 589824 4096'),
    ],
  },
  {
    file: 'chain-base.qcow2',
    format: 'qcow2',
    proves: 'bottom of a chain of three',
    commands: [
      create('chain-base.qcow2', 'cluster_size=4096', '1M'),
      io('chain-base.qcow2', 'write -P 0x81 0 262144', 'write -P 0x82 786432 262144'),
    ],
  },
  {
    file: 'chain-middle.qcow2',
    format: 'qcow2',
    proves: 'relative backing name, format from the header',
    needs: ['chain-base.qcow2'],
    commands: [
      overlay('chain-middle.qcow2', 'chain-base.qcow2', 'qcow2', 'cluster_size=512'),
      io('chain-middle.qcow2', 'write -P 0x83 131072 8192', 'write -P 0x84 786944 512'),
    ],
  },
  {
    file: 'chain-top.qcow2',
    format: 'qcow2',
    proves: 'a chain of three with three cluster sizes',
    needs: ['chain-base.qcow2', 'chain-middle.qcow2'],
    commands: [
      overlay('chain-top.qcow2', 'chain-middle.qcow2', 'qcow2', 'cluster_size=65536'),
      io('chain-top.qcow2', 'write -P 0x85 135168 1024', 'write -z 0 65536'),
    ],
  },
  {
    file: 'over-raw.qcow2',
    format: 'qcow2',
    proves: 'version 2 overlay over a raw backing file',
    needs: ['plain.raw'],
    commands: [
      overlay('over-raw.qcow2', 'plain.raw', 'raw', 'compat=0.10,cluster_size=4096'),
      io('over-raw.qcow2', 'write -P 0x91 1000 100'),
    ],
  },
  {
    file: 'shorter-backing.qcow2',
    format: 'qcow2',
    proves: 'zeroes beyond the end of a shorter backing file, inside a cluster too',
    needs: ['plain.raw'],
    commands: [
      'qemu-img create -q -f qcow2 -b plain.raw -F raw shorter-backing.qcow2 1M',
      io('shorter-backing.qcow2', 'write -P 0x92 131000 1000', 'write -P 0x93 900000 5000'),
    ],
  },
  {
    file: 'unknown-compatible.qcow2',
    format: 'qcow2',
    proves: 'unknown compatible and autoclear bits do not hinder reading',
    commands: [
      'cp v3-4k.qcow2 unknown-compatible.qcow2',
      'poke unknown-compatible.qcow2 80 0000000000000020',
      'poke unknown-compatible.qcow2 88 0000000000000080',
    ],
  },
  {
    file: 'dirty.qcow2',
    format: 'qcow2',
    proves: 'the dirty bit after a killed writer: readable, repaired when opened read-write',
    commands: [
      create('dirty.qcow2', 'cluster_size=4096,lazy_refcounts=on', '1M'),
      io('dirty.qcow2', 'write -P 0xa1 0 65536', 'flush', 'abort'),
    ],
  },
  {
    file: 'corrupt.qcow2',
    format: 'qcow2',
    proves: 'the corrupt bit: readable, refused read-write',
    refusal: 'corrupt',
    readOnlyWorks: true,
    commands: ['cp v3-4k.qcow2 corrupt.qcow2', 'poke corrupt.qcow2 72 0000000000000002'],
  },
  {
    file: 'extended-l2.qcow2',
    format: 'qcow2',
    proves: 'subclusters',
    commands: [
      create('extended-l2.qcow2', 'extended_l2=on,cluster_size=65536', '1M'),
      io('extended-l2.qcow2', 'write -P 0xb5 2048 2048', 'write -z 131072 4096'),
    ],
  },
  {
    file: 'snapshot.qcow2',
    format: 'qcow2',
    proves: 'an internal snapshot that shares clusters with the active layer',
    commands: [
      create('snapshot.qcow2', 'cluster_size=4096', '1M'),
      io('snapshot.qcow2', 'write -P 0xb1 0 65536'),
      'qemu-img snapshot -c first snapshot.qcow2',
      io('snapshot.qcow2', 'write -P 0xb2 4096 8192'),
    ],
  },
];

export const UNSUPPORTED = [
  {
    file: 'bitmap.qcow2',
    format: 'qcow2',
    status: 'supported',
    proves: 'a persistent dirty bitmap with some bits set',
    commands: [
      create('bitmap.qcow2', 'cluster_size=4096', '1M'),
      'qemu-img bitmap --add -g 4096 bitmap.qcow2 changes',
      io('bitmap.qcow2', 'write -P 0xb3 8192 16384'),
    ],
  },
  {
    file: 'zstd.qcow2',
    format: 'qcow2',
    status: 'supported',
    proves: 'clusters compressed with zstd',
    commands: [
      'truncate zstd-source.raw 262144',
      "qemu-io -f raw -c 'write -P 0xb4 0 131072' zstd-source.raw",
      'qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd zstd-source.raw zstd.qcow2',
    ],
  },
  {
    file: 'data-file.qcow2',
    format: 'qcow2',
    refusal: 'data-file.raw',
    proves: 'an external data file that is not there and is not made',
    commands: [
      create('data-file.qcow2', 'data_file=data-file.raw,cluster_size=4096', '64k'),
      io('data-file.qcow2', 'write -P 0xb6 0 4096'),
    ],
  },
  {
    file: 'luks-in-qcow2.qcow2',
    format: 'qcow2',
    status: 'supported',
    secret: 'encrypt.key-secret',
    proves: 'LUKS inside qcow2',
    commands: [
      'qemu-img create -q -f qcow2 --object secret,id=key,file=key -o ' +
        'encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10,' +
        'encrypt.cipher-alg=aes-128,cluster_size=4096 luks-in-qcow2.qcow2 64k',
      "qemu-io --object secret,id=key,file=key -c 'write -P 0xb7 0 5120' " +
        "-c 'write -P 0xb8 24576 8192' -c 'write -z 28672 4096' --image-opts " +
        'driver=qcow2,encrypt.key-secret=key,file.filename=luks-in-qcow2.qcow2',
    ],
  },
  {
    file: 'luks1.luks',
    format: 'luks',
    status: 'supported',
    secret: 'key-secret',
    proves: 'a LUKS1 container made by cryptsetup',
    commands: [
      'truncate luks1.luks 1114112',
      'cryptsetup luksFormat --type luks1 --batch-mode --pbkdf-force-iterations 1000 ' +
        '--key-size 256 --align-payload 1 --key-file key luks1.luks',
      // Key slots 1 to 7 are unused: their random filling would only make the file large.
      'zero luks1.luks 135168 917504',
      "qemu-io --object secret,id=key,file=key -c 'write -P 0xb9 0 61440' --image-opts " +
        'driver=luks,key-secret=key,file.filename=luks1.luks',
    ],
  },
];

function hostile(name, proves, pokes, base = 'v3-4k.qcow2') {
  const file = `hostile-${name}.qcow2`;
  const commands = [`cp ${base} ${file}`, ...pokes.map(([at, hex]) => `poke ${file} ${at} ${hex}`)];
  return { file, format: 'qcow2', proves, commands };
}

/** A backing name written into the second cluster's tail of the header cluster, at byte 2048. */
const backingName = (name) => [
  [8, '0000000000000800'],
  [16, name.length.toString(16).padStart(8, '0')],
  [2048, Buffer.from(name).toString('hex')],
];

/** The header of luks1.luks alone, with zeroes for key material and payload. */
function hostileLuks(name, proves, pokes) {
  const file = `hostile-luks-${name}.luks`;
  const head = [`cp luks1.luks ${file}`, `truncate ${file} 1024`, `truncate ${file} 1114112`];
  return { file, format: 'luks', proves, commands: [...head, ...pokesOf(file, pokes)] };
}

const pokesOf = (file, pokes) => pokes.map(([at, hex]) => `poke ${file} ${at} ${hex}`);

/** The same of version 2, with another JSON text, other bytes, and checksums that hold. */
function hostileLuks2(name, proves, { text = [], pokes = [], sums = true }) {
  const file = `hostile-luks2-${name}.luks`;
  const commands = [
    `truncate ${file} 1200000`,
    'cryptsetup luksFormat --type luks2 --batch-mode --pbkdf pbkdf2 --luks2-metadata-size 16k ' +
      '--pbkdf-force-iterations 1000 --luks2-keyslots-size 256k --offset 2048 --key-size 256 ' +
      `--sector-size 512 --key-file key ${file}`,
    `zero ${file} 32768 1167232`,
    ...text.map(([old, other]) => `retext ${file} '${old}' '${other}'`),
    ...pokesOf(file, pokes),
    ...(sums ? [`seal ${file}`] : []),
  ];
  return { file, format: 'luks', proves, commands };
}

/** The headers of an encrypted image, with zeroes for key material and data. */
function hostileCrypt(name, proves, pokes) {
  const recipe = hostile(`luks-${name}`, proves, pokes, 'luks-in-qcow2.qcow2');
  const { file, commands } = recipe;
  const cut = [`truncate ${file} 20480`, `truncate ${file} 1069056`];
  return { ...recipe, commands: [...commands, ...cut] };
}

const HOSTILE_LUKS = [
  hostileLuks('slots-overlap', 'two keyslots at one place', [[296, '00000008']]),
  hostileLuks('slot-on-header', 'a keyslot on top of the header', [[248, '00000000']]),
  hostileLuks('slot-on-payload', 'a payload within the keyslots', [[104, '00000100']]),
  hostileLuks('slot-wraps', 'key material that ends beyond 2^32 sectors', [[584, 'ffffff80']]),
  hostileLuks('stripes', 'a key that is not split', [[252, '00000001']]),
  hostileLuks('slot-state', 'a keyslot neither in use nor free', [[304, '00000001']]),
  hostileLuks('slot-iterations', 'a password that takes hours', [[212, 'ffffffff']]),
  hostileLuks('digest-iterations', 'a digest that takes hours', [[164, 'ffffffff']]),
  hostileLuks('key-bytes', 'a key of 4 GiB', [[108, 'ffffffff']]),
  hostileLuks('cipher-endless', 'a cipher name without an end', [[8, '78'.repeat(32)]]),
  hostileLuks('cipher-escape', 'escapes for the terminal in a cipher name', [
    [8, '1b5b324a0a00'],
  ]),
  hostileLuks('cipher-unknown', 'a cipher that nobody knows', [[8, '726f743133000000']]),
  hostileLuks('uuid-bytes', 'a UUID of bytes that are no text', [[168, 'fffe80c000']]),
  hostileLuks('payload-beyond-end', 'a payload beyond the end of the file', [[104, 'ffffffff']]),
  hostileLuks('version-3', 'a version of the future', [[6, '0003']]),
  hostileLuks2('area-on-header', 'key material on top of the second copy', {
    text: [['"offset":"32768"', '"offset":"16384"']],
  }),
  hostileLuks2('payload-on-slots', 'a payload within the keyslots', {
    text: [['"offset":"1048576"', '"offset":"36864"']],
  }),
  hostileLuks2('offset-huge', 'a payload beyond 2^64', {
    text: [['"offset":"1048576"', '"offset":"18446744073710600192"']],
  }),
  hostileLuks2('member-twice', 'a member that two programs read differently', {
    text: [['"config":{', '"config":{},"config":{']],
  }),
  hostileLuks2('deep', 'text that nests deeply', {
    text: [['"tokens":{', `"tokens":{"0":${'['.repeat(2000)}${']'.repeat(2000)}`]],
  }),
  hostileLuks2('no-digest', 'a keyslot that no digest verifies', {
    text: [['"keyslots":["0"]', '"keyslots":[]']],
  }),
  hostileLuks2('requirement', 'a requirement of the future', {
    text: [['"config":{', '"config":{"requirements":{"mandatory":["of-the-future"]},']],
  }),
  hostileLuks2('iterations', 'a password that takes hours', {
    text: [['"iterations":1000', '"iterations":2147483647']],
  }),
  hostileLuks2('argon2-memory', 'a password that takes 4 GiB of memory', {
    text: [
      [
        '"type":"pbkdf2","hash":"sha256","iterations":1000,"salt"',
        '"type":"argon2id","time":4,"memory":4194304,"cpus":4,"salt"',
      ],
    ],
  }),
  hostileLuks2('size-huge', 'copies of 2^64 bytes, their checksums right', {
    pokes: [
      [8, 'ffffffffffffffff'],
      [16392, 'ffffffffffffffff'],
    ],
  }),
  hostileLuks2('checksums', 'two copies whose checksums are wrong', {
    pokes: [
      [448, '00000000'],
      [16832, '00000000'],
    ],
    sums: false,
  }),
  hostileCrypt('no-extension', 'no extension names the LUKS header', [[112, '12345678']]),
  hostileCrypt('extension-short', 'an extension without a length', [[116, '00000008']]),
  hostileCrypt('extension-twice', 'two LUKS headers', [
    [136, '0537be7700000010000000000000400000000000001010000000000000000000'],
  ]),
  hostileCrypt('area-beyond-end', 'a LUKS header beyond the end', [[120, '0000000100000000']]),
  hostileCrypt('area-huge', 'a LUKS header of 2^63 bytes', [[128, '7fffffffffffffff']]),
  hostileCrypt('area-on-l1', 'an L1 table within the LUKS header', [[40, '0000000000005000']]),
  hostileCrypt('slots-overlap', 'two keyslots at one place', [[16680, '00000008']]),
];

export const HOSTILE = [
  hostile('version-1', 'version 1 is refused', [[4, '00000001']]),
  hostile('version-4', 'a version of the future is refused', [[4, '00000004']]),
  hostile('cluster-bits-8', 'clusters below 512 bytes', [[20, '00000008']]),
  hostile('cluster-bits-63', 'clusters above 2 MiB', [[20, '0000003f']]),
  hostile('size-negative', 'a virtual size beyond 2^63', [[24, 'fffffffffffffe00']]),
  hostile('size-beyond-l1', 'a virtual size that the L1 table does not cover', [
    [24, '0000100000000000'],
  ]),
  hostile('l1-huge', 'an L1 table of 16 GiB', [[36, '7fffffff']]),
  hostile('l1-unaligned', 'an L1 table inside a cluster', [[40, '0000000000003001']]),
  hostile('l1-beyond-end', 'an L1 table beyond the end of the file', [[40, '0000000100000000']]),
  hostile('l1-overflow', 'L1 offset plus size overflows', [[40, '7ffffffffffff000']]),
  hostile('l1-entry-beyond-end', 'an L2 table beyond the end of the file', [
    [12288, '8000000100000000'],
  ]),
  hostile('l1-entry-unaligned', 'an L2 table inside a cluster', [[12288, '8000000000004200']]),
  hostile('l2-entry-unaligned', 'a data cluster at an odd host offset', [
    [16384, '8000000000005200'],
  ]),
  hostile('refcount-table-beyond-end', 'a refcount table beyond the end of the file', [
    [48, '0000000100000000'],
  ]),
  hostile('refcount-table-unaligned', 'a refcount table inside a cluster', [
    [48, '0000000000001001'],
  ]),
  hostile('refcount-table-huge', 'a refcount table of 16 TiB', [[56, 'ffffffff']]),
  hostile('refcount-order-7', 'refcounts of 128 bits', [[96, '00000007']]),
  hostile('header-length-short', 'a header shorter than version 3 allows', [[100, '00000048']]),
  hostile('header-length-huge', 'a header longer than a cluster', [[100, 'ffffffff']]),
  hostile('compression-type', 'an unknown compression type', [[104, '68']]),
  hostile('extension-huge', 'a header extension longer than the header cluster', [
    [112, '6803f857ffffff00'],
  ]),
  hostile('backing-name-long', 'a backing name of 2,000 bytes', [
    [8, '0000000000000100'],
    [16, '000007d0'],
  ]),
  hostile('backing-name-outside', 'a backing name beyond the header cluster', [
    [8, '0000000000000ff0'],
    [16, '00000040'],
  ]),
  hostile('backing-escape', 'an escape in the backing name', backingName('\x1b[31m\x07red')),
  hostile('backing-self', 'it backs itself', backingName('./hostile-backing-self.qcow2')),
  {
    ...hostile('backing-loop', 'two images that back each other', backingName(
      'hostile-backing-loop-b.qcow2',
    )),
    needs: ['hostile-backing-loop-b.qcow2'],
  },
  {
    ...hostile('backing-loop-b', 'the other half of the loop', backingName(
      'hostile-backing-loop.qcow2',
    )),
    needs: ['hostile-backing-loop.qcow2'],
  },
  hostile('unknown-incompatible', 'an unknown incompatible bit', [[72, '0000000000000100']]),
  hostile('snapshots-many', 'more snapshots than the format allows', [
    [60, '00010001'],
    [64, '0000000000001000'],
  ]),
  hostile('snapshot-l1-huge', 'a snapshot with a larger L1 table than the image', [
    [90120, '00400000'],
  ], 'snapshot.qcow2'),
  hostile('snapshot-l1-unaligned', 'a snapshot with an L1 table inside a cluster', [
    [90112, '0000000000015008'],
  ], 'snapshot.qcow2'),
  hostile('snapshot-extra-huge', 'a snapshot with 4 GiB of extra data', [
    [90148, 'ffffffff'],
  ], 'snapshot.qcow2'),
  hostile('snapshot-escape', 'an escape in the name of a snapshot that is broken', [
    [90112, '0000000000015008'],
    [90177, '1b5b33316d'],
  ], 'snapshot.qcow2'),
  {
    ...hostile('snapshots-empty', '2,048 snapshots of zeroes', [
      [60, '00000800'],
      [64, '0000000000039000'],
    ]),
    commands: ['cp v3-4k.qcow2 hostile-snapshots-empty.qcow2',
      'poke hostile-snapshots-empty.qcow2 60 00000800',
      'poke hostile-snapshots-empty.qcow2 64 0000000000039000',
      'truncate hostile-snapshots-empty.qcow2 315392'],
  },
  hostile('bitmap-escape', 'an escape in the name of a bitmap that is broken', [
    [53256, '7fffffff'],
    [53272, '1b5b33316d0a'],
  ], 'bitmap.qcow2'),
  hostile('bitmap-table-huge', 'a bitmap with more bits than may be', [
    [53256, '7fffffff'],
  ], 'bitmap.qcow2'),
  hostile('bitmap-directory-huge', 'a bitmap directory of 2^63 bytes', [
    [128, '8000000000000000'],
  ], 'bitmap.qcow2'),
  hostile('refcounts-zero', 'metadata that is free by its refcounts', [
    [8192, '00'.repeat(4096)],
  ]),
  hostile('refcount-block-unaligned', 'a refcount block inside a cluster', [
    [4096, '0000000000002200'],
  ]),
  hostile('l2-is-header', 'an L1 entry that names the header, marked as its own', [
    [12288, '8000000000000000'],
  ]),
  hostile('l2-is-l1', 'an L1 table that is its own L2 table', [[12288, '8000000000003000']]),
  hostile('subcluster-contradiction', 'a subcluster both allocated and zero', [
    [262152, '0000000200000002'],
  ], 'extended-l2.qcow2'),
  hostile('data-file-json', 'a data file whose name looks like JSON', [
    [120, Buffer.from('json:{"a": 1}').toString('hex')],
  ], 'data-file.qcow2'),
  hostile('deflate-bomb', 'a compressed cluster of 4 KiB that holds 64 KiB', [
    [16384, '4000000000005000'],
    [20480, deflateRawSync(Buffer.alloc(65_536)).toString('hex')],
  ], 'compressed.qcow2'),
  hostile('zstd-window', 'a compressed cluster with a window of 2 TiB', [
    [327680, '28b52ffd00f80100000000000000'],
  ], 'zstd.qcow2'),
  hostile('zstd-empty-frames', 'a compressed cluster of empty frames only', [
    [327680, '28b52ffd2000010000'.repeat(50)],
  ], 'zstd.qcow2'),
  hostile('crypt-method-3', 'an unknown encryption method', [[32, '00000003']]),
  hostile('compressed-garbage', 'a compressed cluster that is no deflate stream', [
    [16384, '4000000000005000'],
  ]),
  hostile('compressed-beyond-end', 'a compressed cluster beyond the end of the file', [
    [16384, '400000000ff05000'],
  ]),
  {
    ...hostile('truncated-header', 'a file that ends inside the header', []),
    commands: ['cp v3-4k.qcow2 hostile-truncated-header.qcow2',
      'truncate hostile-truncated-header.qcow2 60'],
  },
  {
    ...hostile('truncated-l2', 'a file that ends before its L2 table', []),
    commands: ['cp v3-4k.qcow2 hostile-truncated-l2.qcow2',
      'truncate hostile-truncated-l2.qcow2 14000'],
  },
  ...HOSTILE_LUKS,
];
