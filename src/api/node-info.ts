// SPDX-License-Identifier: Apache-2.0
// What queries say of one node: its image, its cache, its limits, its bitmaps.
//
// Members that nothing here ever gives (bursts of a device, snapshots of a format that has none)
// are declared all the same: a client that probes finds what it finds in the reference.

import { detectZeroesOptions } from '../block/options.js';
import {
  cipherAlgorithm,
  cipherMode,
  hashAlgorithm,
  ivGeneratorAlgorithm,
} from '../crypto/options.js';
import {
  bool,
  deferred,
  enumeration,
  int,
  list,
  optional,
  str,
  struct,
  uint,
  uint32,
  union,
} from '../schema/index.js';
import type { Type } from '../schema/index.js';

export const blockDirtyInfo = struct('BlockDirtyInfo', {
  name: optional(str),
  count: uint,
  granularity: uint32,
  recording: bool,
  busy: bool,
  persistent: bool,
  inconsistent: optional(bool),
});

export const snapshotInfo = struct('SnapshotInfo', {
  id: str,
  name: str,
  'vm-state-size': uint,
  'date-sec': int,
  'date-nsec': int,
  'vm-clock-sec': int,
  'vm-clock-nsec': int,
  icount: optional(int),
});

const luksSlot = struct('QCryptoBlockInfoLUKSSlot', {
  active: bool,
  iters: optional(uint),
  stripes: optional(uint),
  'key-offset': uint,
});
const LUKS_INFO = {
  'cipher-alg': cipherAlgorithm,
  'cipher-mode': cipherMode,
  'ivgen-alg': ivGeneratorAlgorithm,
  'ivgen-hash-alg': optional(hashAlgorithm),
  'hash-alg': hashAlgorithm,
  'payload-offset': int,
  'master-key-iters': int,
  uuid: str,
} as const;
const luksInfo = struct('QCryptoBlockInfoLUKS', { ...LUKS_INFO, slots: list(luksSlot) });

/** Optional members are of version 2 alone, which the reference does not open. */
const anyLuksSlot = struct('ImageInfoSpecificLUKSSlot', {
  ...luksSlot.members,
  keyslot: optional(uint),
  kdf: optional(str),
  passes: optional(uint),
  'memory-kib': optional(uint),
  lanes: optional(uint),
});
const anyLuksInfo = struct('ImageInfoSpecificLUKS', {
  ...LUKS_INFO,
  slots: list(anyLuksSlot),
  version: optional(uint),
  'sector-size': optional(uint),
  label: optional(str),
});

const qcow2Specific = struct('ImageInfoSpecificQCow2', {
  compat: str,
  'data-file': optional(str),
  'data-file-raw': optional(bool),
  'extended-l2': optional(bool),
  'lazy-refcounts': optional(bool),
  corrupt: optional(bool),
  'refcount-bits': int,
  encrypt: optional(
    union('ImageInfoSpecificQCow2Encryption', {
      discriminator: 'format',
      tagName: 'BlockdevQcow2EncryptionFormat',
      branches: { aes: null, luks: luksInfo },
    }),
  ),
  bitmaps: optional(
    list(
      struct('Qcow2BitmapInfo', {
        name: str,
        granularity: uint32,
        flags: list(enumeration('Qcow2BitmapInfoFlags', ['in-use', 'auto'])),
      }),
    ),
  ),
  'compression-type': enumeration('Qcow2CompressionType', ['zlib', 'zstd']),
});

export const imageInfoSpecific = union('ImageInfoSpecific', {
  discriminator: 'type',
  tagName: 'ImageInfoSpecificKind',
  branches: {
    qcow2: struct('ImageInfoSpecificQCow2Wrapper', { data: qcow2Specific }),
    luks: struct('ImageInfoSpecificLUKSWrapper', { data: anyLuksInfo }),
  },
});

export interface ImageInfoValue {
  readonly filename: string;
  readonly format: string;
  readonly 'dirty-flag'?: boolean;
  readonly 'actual-size'?: number;
  /** Bytes. */
  readonly 'virtual-size': number;
  readonly 'cluster-size'?: number;
  readonly encrypted?: boolean;
  readonly compressed?: boolean;
  readonly 'backing-filename'?: string;
  readonly 'full-backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly snapshots?: unknown;
  readonly 'format-specific'?: unknown;
  readonly 'backing-image'?: unknown;
}

export const imageInfo = deferred<ImageInfoValue>('ImageInfo');
imageInfo.define(
  struct('ImageInfo', {
    filename: str,
    format: str,
    'dirty-flag': optional(bool),
    'actual-size': optional(uint),
    'virtual-size': uint,
    'cluster-size': optional(uint),
    encrypted: optional(bool),
    compressed: optional(bool),
    'backing-filename': optional(str),
    'full-backing-filename': optional(str),
    'backing-filename-format': optional(str),
    snapshots: optional(list(snapshotInfo)),
    'backing-image': optional(imageInfo),
    'format-specific': optional(imageInfoSpecific),
  }),
);

const LIMITS = ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr'] as const;
type Limit = (typeof LIMITS)[number];
type Burst = `${Limit}_max` | `${Limit}_max_length`;

const optionalUint = optional(uint);

const bursts = Object.fromEntries(
  ['max', 'max_length'].flatMap((what) =>
    LIMITS.map((limit) => [`${limit}_${what}`, optionalUint] as const),
  ),
) as Readonly<Record<Burst, typeof optionalUint>>;

export const blockDeviceInfo = struct('BlockDeviceInfo', {
  file: str,
  'node-name': optional(str),
  ro: bool,
  drv: str,
  backing_file: optional(str),
  backing_file_depth: uint,
  encrypted: bool,
  detect_zeroes: detectZeroesOptions,
  bps: uint,
  bps_rd: uint,
  bps_wr: uint,
  iops: uint,
  iops_rd: uint,
  iops_wr: uint,
  image: imageInfo as Type<ImageInfoValue>,
  ...bursts,
  iops_size: optional(uint),
  group: optional(str),
  cache: struct('BlockdevCacheInfo', { writeback: bool, direct: bool, 'no-flush': bool }),
  write_threshold: uint,
  'dirty-bitmaps': optional(list(blockDirtyInfo)),
});
