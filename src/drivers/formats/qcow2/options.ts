// SPDX-License-Identifier: Apache-2.0
// Options of the qcow2 driver: blockdev-add and blockdev-create. Pure data.

import { blockdevRef, blockdevRefOrNull, preallocMode } from '../../../block/options.js';
import {
  encryptionAmendOptions,
  LUKS_OPEN_MEMBERS,
  luksCreateMembers,
} from '../../../crypto/options.js';
import {
  alternate,
  bool,
  enumeration,
  int,
  optional,
  size,
  str,
  struct,
  union,
} from '../../../schema/index.js';
import type { Infer } from '../../../schema/index.js';

const overlapMode = enumeration('Qcow2OverlapCheckMode', ['none', 'constant', 'cached', 'all']);
const overlapChecks = alternate('Qcow2OverlapChecks', {
  flags: struct('Qcow2OverlapCheckFlags', {
    template: optional(overlapMode),
    'main-header': optional(bool),
    'active-l1': optional(bool),
    'active-l2': optional(bool),
    'refcount-table': optional(bool),
    'refcount-block': optional(bool),
    'snapshot-table': optional(bool),
    'inactive-l1': optional(bool),
    'inactive-l2': optional(bool),
    'bitmap-directory': optional(bool),
  }),
  mode: overlapMode,
});

const aesKey = struct('QCryptoBlockOptionsQCow', { 'key-secret': optional(str) });
const luksKey = struct('QCryptoBlockOptionsLUKS', LUKS_OPEN_MEMBERS);
const encryption = union('BlockdevQcow2Encryption', {
  discriminator: 'format',
  tagName: 'BlockdevQcow2EncryptionFormat',
  branches: { aes: aesKey, luks: luksKey },
});

export const qcow2Options = struct('BlockdevOptionsQcow2', {
  file: blockdevRef,
  backing: optional(blockdevRefOrNull),
  'lazy-refcounts': optional(bool),
  'pass-discard-request': optional(bool),
  'pass-discard-snapshot': optional(bool),
  'pass-discard-other': optional(bool),
  'overlap-check': optional(overlapChecks),
  'cache-size': optional(size),
  'l2-cache-size': optional(size),
  'l2-cache-entry-size': optional(size),
  'refcount-cache-size': optional(size),
  'cache-clean-interval': optional(int),
  encrypt: optional(encryption),
  'data-file': optional(blockdevRef),
});
export type Qcow2Options = Infer<typeof qcow2Options>;

export const qcow2Version = enumeration('BlockdevQcow2Version', ['v2', 'v3']);
export const qcow2CompressionType = enumeration('Qcow2CompressionType', ['zlib', 'zstd']);

/** Drivers of QEMU 7.2: what a header may name as the format of its backing file. */
export const qcow2BackingFormat = enumeration('Qcow2BackingFormat', [
  'blkdebug',
  'blklogwrites',
  'blkreplay',
  'blkverify',
  'bochs',
  'cloop',
  'compress',
  'copy-before-write',
  'copy-on-read',
  'dmg',
  'file',
  'snapshot-access',
  'ftp',
  'ftps',
  'gluster',
  'host_cdrom',
  'host_device',
  'http',
  'https',
  'iscsi',
  'luks',
  'nbd',
  'nfs',
  'null-aio',
  'null-co',
  'nvme',
  'parallels',
  'preallocate',
  'qcow',
  'qcow2',
  'qed',
  'quorum',
  'raw',
  'rbd',
  'replication',
  'ssh',
  'throttle',
  'vdi',
  'vhdx',
  'vmdk',
  'vpc',
  'vvfat',
]);

/** `qcow` is the older AES method. */
const newEncryption = union('QCryptoBlockCreateOptions', {
  discriminator: 'format',
  tagName: 'QCryptoBlockFormat',
  branches: { qcow: aesKey, luks: luksCreateMembers },
});

export const qcow2CreateOptions = struct('BlockdevCreateOptionsQcow2', {
  file: blockdevRef,
  'data-file': optional(blockdevRef),
  'data-file-raw': optional(bool),
  'extended-l2': optional(bool),
  size,
  version: optional(qcow2Version),
  'backing-file': optional(str),
  'backing-fmt': optional(qcow2BackingFormat),
  encrypt: optional(newEncryption),
  'cluster-size': optional(size),
  preallocation: optional(preallocMode),
  'lazy-refcounts': optional(bool),
  'refcount-bits': optional(size),
  'compression-type': optional(qcow2CompressionType),
});
/** Command lines give the backing format as it is; whoever opens the backing file looks at it. */
export type Qcow2CreateOptions = Omit<Infer<typeof qcow2CreateOptions>, 'backing-fmt'> & {
  readonly 'backing-fmt'?: string | undefined;
};

/** What a running program may amend; `img amend` goes further. */
export const qcow2AmendOptions = struct('BlockdevAmendOptionsQcow2', {
  encrypt: optional(encryptionAmendOptions),
});
