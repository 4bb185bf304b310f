// SPDX-License-Identifier: Apache-2.0
// The on-disk tables of LUKS version 1: the header of 592 bytes and its eight keyslots.
//
// Source: "LUKS1 On-Disk Format Specification" 1.2.3, sections 2.2 to 2.4. Numbers are big endian,
// offsets are sectors of 512 bytes from the header's start. The last keyslots lie across a sector
// border: what changes of them is written so that either sector may come alone.

import { assertLayout, bytes, struct, u16, u32 } from '../../base/index.js';
import type { StructValue } from '../../base/index.js';

export const LUKS_MAGIC = new Uint8Array([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]);
export const HEADER_BYTES = 592;
export const KEYSLOT_COUNT = 8;
export const KEYSLOTS_AT = 208;
export const STRIPES = 4000;
/** Key material begins and ends at multiples of this many bytes in headers that are made here. */
export const MATERIAL_ALIGNMENT = 4096;
export const DIGEST_BYTES = 20;
export const SALT_BYTES = 32;

export const SlotState = { active: 0x00ac71f3, inactive: 0x0000dead } as const;

export const HEADER = struct('LUKS header', [
  bytes('magic', 6),
  u16('version'),
  bytes('cipherName', 32),
  bytes('cipherMode', 32),
  bytes('hashSpec', 32),
  u32('payloadOffset'),
  u32('keyBytes'),
  bytes('mkDigest', DIGEST_BYTES),
  bytes('mkDigestSalt', SALT_BYTES),
  u32('mkDigestIterations'),
  bytes('uuid', 40),
]);

export const KEYSLOT = struct('LUKS keyslot', [
  u32('active'),
  u32('iterations'),
  bytes('salt', SALT_BYTES),
  u32('keyMaterialOffset'),
  u32('stripes'),
]);

assertLayout(HEADER, { 1: KEYSLOTS_AT });
assertLayout(KEYSLOT, { 1: 48 });

export type RawHeader = StructValue<typeof HEADER>;
export type RawKeyslot = StructValue<typeof KEYSLOT>;
