// SPDX-License-Identifier: Apache-2.0
// The policies of a node from its options: overlap checks, discards, cache sizes.
//
// A single flag of overlap-check counts over its template. One size for both caches gives the L2
// tables all they can use and the refcount blocks the rest, those never less than four clusters.

import { QCOW2_LIMITS } from '../../../base/index.js';
import { l2TableBytes } from './cache-options.js';
import type { Geometry } from './layout.js';
import { DEFAULT_POLICIES, Guarded, OVERLAP_MODES } from './metadata/index.js';
import type { Policies } from './metadata/index.js';
import type { Qcow2Options } from './options.js';

const FLAGS = {
  'main-header': Guarded.mainHeader,
  'active-l1': Guarded.activeL1,
  'active-l2': Guarded.activeL2,
  'refcount-table': Guarded.refcountTable,
  'refcount-block': Guarded.refcountBlock,
  'snapshot-table': Guarded.snapshotTable,
  'inactive-l1': Guarded.inactiveL1,
  'inactive-l2': Guarded.inactiveL2,
  'bitmap-directory': Guarded.bitmapDirectory,
} as const;

const MIN_REFCOUNT_CLUSTERS = 4;

type Options = Readonly<Record<string, unknown>>;

/**
 * Single options over those in force: a template of overlap checks over all flags before it, flags
 * over what there is; one cache size for both over two, and a second one over that for both.
 */
export function joinOptions(kept: Options, given: Options): Options {
  const { 'overlap-check': checks } = given;
  const sizes = ['cache-size', 'l2-cache-size', 'refcount-cache-size'] as const;
  const [both, ...parts] = sizes;
  const joined: Record<string, unknown> = { ...kept, ...given };
  if (typeof checks === 'object' && checks !== null && !('template' in checks)) {
    const old = kept['overlap-check'];
    joined['overlap-check'] = {
      ...(typeof old === 'string' ? { template: old } : (old as Options | undefined)),
      ...checks,
    };
  }
  if (given[both] !== undefined) {
    for (const part of parts) joined[part] = given[part];
  } else if (sizes.every((name) => joined[name] !== undefined)) {
    joined[both] = undefined;
  }
  return joined;
}

interface Image {
  readonly geometry: Geometry;
  /** Virtual size in bytes. */
  readonly size: number;
}

/** Of options that checkCacheOptions() let pass. */
export function policiesOf(options: Qcow2Options, image: Image): Policies {
  const interval = options['cache-clean-interval'] ?? QCOW2_LIMITS.cleanIntervalSeconds;
  return {
    ...cacheSizes(options, image),
    l2PieceBytes: options['l2-cache-entry-size'] ?? DEFAULT_POLICIES.l2PieceBytes,
    guarded: guardedBy(options['overlap-check']),
    passDiscardRequest: options['pass-discard-request'] ?? DEFAULT_POLICIES.passDiscardRequest,
    passDiscardSnapshot: options['pass-discard-snapshot'] ?? DEFAULT_POLICIES.passDiscardSnapshot,
    passDiscardOther: options['pass-discard-other'] ?? DEFAULT_POLICIES.passDiscardOther,
    cleanIntervalMs: Number(interval) * 1000,
  };
}

function guardedBy(checks: Qcow2Options['overlap-check']): number {
  if (checks === undefined) return DEFAULT_POLICIES.guarded;
  if (typeof checks === 'string') return OVERLAP_MODES[checks];
  let guarded: number = OVERLAP_MODES[checks.template ?? 'cached'];
  for (const name of Object.keys(FLAGS) as (keyof typeof FLAGS)[]) {
    const on = checks[name];
    if (on === true) guarded |= FLAGS[name];
    else if (on === false) guarded &= ~FLAGS[name];
  }
  return guarded;
}

function cacheSizes(
  options: Qcow2Options,
  { geometry, size }: Image,
): Pick<Policies, 'l2CacheBytes' | 'refcountCacheBytes'> {
  const l2 = options['l2-cache-size'];
  const refcount = options['refcount-cache-size'];
  const both = options['cache-size'];
  if (both === undefined) {
    return {
      l2CacheBytes: l2 ?? DEFAULT_POLICIES.l2CacheBytes,
      refcountCacheBytes: refcount ?? DEFAULT_POLICIES.refcountCacheBytes,
    };
  }
  if (l2 !== undefined) return { l2CacheBytes: l2, refcountCacheBytes: both - l2 };
  if (refcount !== undefined) {
    return { l2CacheBytes: both - refcount, refcountCacheBytes: refcount };
  }
  const least = Math.min(both, MIN_REFCOUNT_CLUSTERS * geometry.clusterSize);
  const l2CacheBytes = Math.min(l2TableBytes({ geometry, size }), both - least);
  return { l2CacheBytes, refcountCacheBytes: both - l2CacheBytes };
}
