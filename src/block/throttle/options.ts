// SPDX-License-Identifier: Apache-2.0
// How the limits of a throttle group are spelled; pure data.
//
// Six rates (bps and iops; total, read, write), each with a burst rate and the seconds it may last,
// and the size up to which a request is one operation. `limits` takes them as they are, the older
// spelling puts `x-` before each.

import { int, optional, struct } from '../../schema/index.js';
import type { Facts, Infer, Member, StructType } from '../../schema/index.js';

export const RATE_NAMES = [
  'bps-total',
  'bps-read',
  'bps-write',
  'iops-total',
  'iops-read',
  'iops-write',
] as const;

export type RateName = (typeof RATE_NAMES)[number];
export type LimitName = RateName | `${RateName}-max` | `${RateName}-max-length` | 'iops-size';

export const LIMIT_NAMES: readonly LimitName[] = [
  ...RATE_NAMES.flatMap((name) => [name, `${name}-max`, `${name}-max-length`] as const),
  'iops-size',
];

type OptionalInt = Member<number | bigint, true>;

function optionalInts<const P extends string>(
  prefix: P,
  facts: Facts = {},
): Readonly<Record<`${P}${LimitName}`, OptionalInt>> {
  const members = LIMIT_NAMES.map((name) => [`${prefix}${name}`, optional(int, facts)]);
  return Object.fromEntries(members) as Record<`${P}${LimitName}`, OptionalInt>;
}

export type ThrottleLimits = Readonly<Partial<Record<LimitName, number | bigint>>>;

export const throttleLimits: StructType<ThrottleLimits> = struct(
  'ThrottleLimits',
  optionalInts(''),
) as StructType<ThrottleLimits>;

export const throttleGroupProperties = struct('ThrottleGroupProperties', {
  limits: optional(throttleLimits),
  ...optionalInts('x-', { features: ['unstable'] }),
});

export type ThrottleGroupProperties = Infer<typeof throttleGroupProperties>;
