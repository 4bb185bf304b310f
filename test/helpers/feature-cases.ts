// SPDX-License-Identifier: Apache-2.0
// Features of qcow2 that stand together in one image, and command lines of img that work on it:
// the tables of campaigns that cut the power or kill the program.
import type { Features } from './feature-stage.js';

/** Of the image, in bytes. */
export const FEATURE_SIZE = 160 * 1024;
const SIZE = FEATURE_SIZE;

/** Sectors count from where they lie in the file; the least iterations. */
const LUKS = 'encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=0';
const ADD = 'encrypt.state=active,encrypt.new-secret=k,encrypt.iter-time=0';
const LUKS_CBC =
  'encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv';

export const FEATURES: Readonly<Record<string, Features>> = {
  plain: { options: 'cluster_size=64k' },
  'clusters of 4 KiB and a bitmap': { options: 'cluster_size=4k', bitmap: true },
  'extended L2 and a snapshot': {
    options: 'extended_l2=on,cluster_size=16k',
    snapshot: true,
  },
  'one-bit refcounts and a bitmap': {
    options: 'cluster_size=4k,refcount_bits=1',
    bitmap: true,
  },
  'a snapshot and a bitmap': {
    options: 'cluster_size=512,refcount_bits=2',
    snapshot: true,
    bitmap: true,
  },
  'a data file': { options: 'cluster_size=4k,data_file=/data', dataFile: true },
  'a data file, extended L2 and a bitmap': {
    options: 'cluster_size=16k,extended_l2=on,data_file=/data',
    dataFile: true,
    bitmap: true,
  },
  'a raw data file': {
    options: 'cluster_size=4k,data_file=/data,data_file_raw=on',
    dataFile: true,
    alone: true,
  },
  'lazy refcounts and a snapshot': {
    options: 'cluster_size=4k,lazy_refcounts=on',
    snapshot: true,
    lazy: true,
  },
  'lazy refcounts, extended L2, zstd, a bitmap and a snapshot': {
    options: 'cluster_size=16k,extended_l2=on,lazy_refcounts=on,compression_type=zstd',
    snapshot: true,
    bitmap: true,
    lazy: true,
  },
  'version 2 and a snapshot': { options: 'compat=0.10,cluster_size=4k', snapshot: true },
  'AES, extended L2, a snapshot and a bitmap': {
    options: 'cluster_size=16k,extended_l2=on,encrypt.format=aes,encrypt.key-secret=k',
    snapshot: true,
    bitmap: true,
    encrypted: true,
  },
  'AES and a data file': {
    options: 'cluster_size=4k,data_file=/data,encrypt.format=aes,encrypt.key-secret=k',
    dataFile: true,
    encrypted: true,
  },
  'LUKS, a snapshot and a bitmap': {
    options: `cluster_size=4k,encrypt.cipher-alg=aes-256,encrypt.ivgen-alg=plain64,${LUKS}`,
    snapshot: true,
    bitmap: true,
    encrypted: true,
  },
  'LUKS, extended L2 and a snapshot': {
    options: `cluster_size=16k,extended_l2=on,${LUKS_CBC},${LUKS}`,
    snapshot: true,
    encrypted: true,
  },
  'LUKS, lazy refcounts and a bitmap': {
    options: `cluster_size=2k,lazy_refcounts=on,${LUKS_CBC},${LUKS}`,
    bitmap: true,
    lazy: true,
    encrypted: true,
  },
  'LUKS and a data file': {
    options: `cluster_size=4k,data_file=/data,${LUKS_CBC},${LUKS}`,
    dataFile: true,
    encrypted: true,
  },
  'L2 tables in pieces and a snapshot': {
    options: 'cluster_size=1k',
    snapshot: true,
    opening: { 'l2-cache-entry-size': 512 },
  },
};

/** Command lines, and which features they are refused with. */
interface Verb {
  readonly line: string;
  readonly isRefused?: (features: Features) => boolean;
  /** The view becomes another. */
  readonly changes?: boolean;
}

const VERBS: readonly Verb[] = [
  { line: 'commit /top' },
  { line: 'commit -d /top' },
  { line: 'rebase -b /other -F qcow2 /top' },
  { line: "rebase -b '' /top" },
  {
    line: `resize --shrink /top ${SIZE / 4}`,
    changes: true,
    isRefused: ({ snapshot, bitmap }) => snapshot === true || bitmap === true,
  },
  {
    line: `resize /top ${SIZE * 3}`,
    changes: true,
    isRefused: ({ options }) => options.includes('0.10'),
  },
  { line: 'snapshot -c s2 /top', isRefused: ({ dataFile }) => dataFile === true },
  {
    line: 'snapshot -a s1 /top',
    changes: true,
    isRefused: ({ snapshot, bitmap }) => snapshot !== true || bitmap === true,
  },
  { line: 'snapshot -d s1 /top', isRefused: ({ snapshot }) => snapshot !== true },
  { line: 'bitmap --add /top b1', isRefused: ({ options }) => options.includes('0.10') },
  { line: 'bitmap --remove /top b0', isRefused: ({ bitmap }) => bitmap !== true },
  { line: 'bitmap --clear --disable /top b0', isRefused: ({ bitmap }) => bitmap !== true },
  { line: 'bitmap --add --merge b0 /top b1', isRefused: ({ bitmap }) => bitmap !== true },
  { line: 'amend -o compat=1.1,refcount_bits=32 /top' },
  {
    line: 'amend -o refcount_bits=4,lazy_refcounts=on /top',
    isRefused: ({ options }) => options.includes('0.10'),
  },
  {
    line: 'amend -o compat=0.10 /top',
    isRefused: ({ options, bitmap, dataFile, snapshot }) =>
      bitmap === true ||
      dataFile === true ||
      snapshot === true ||
      /extended|zstd|bits/.test(options),
  },
  {
    line: `amend -o ${ADD},refcount_bits=32 /top`,
    isRefused: ({ options }) => !options.includes('format=luks'),
  },
  { line: 'check -q -r all /top' },
];

/** Every command line with all features that it works with. */
export const VERB_CASES = VERBS.flatMap(({ line, ...verb }, index) =>
  Object.entries(FEATURES)
    .filter(([, features]) => verb.isRefused?.(features) !== true)
    .filter(([, { options }]) => !(line === 'snapshot -c s2 /top' && /bits=[12]/.test(options)))
    .filter(([, { alone }]) => alone !== true || !/commit|rebase/.test(line))
    .map(([name, features]) => ({ line, name, features, verb, seed: index + 1 })),
);
