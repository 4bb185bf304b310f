// SPDX-License-Identifier: Apache-2.0
// The binary header of LUKS version 2, of which there are two, each with JSON text behind it.
//
// Source: "LUKS2 On-Disk Format Specification" 1.1.1, section 2.1. Numbers are big endian. The
// second copy begins where the first ends; which sizes there are says where to look for it when
// the first is lost.

import { assertLayout, bytes, struct, u16 } from '../../base/index.js';
import type { StructValue } from '../../base/index.js';

export const SECOND_MAGIC = new Uint8Array([0x53, 0x4b, 0x55, 0x4c, 0xba, 0xbe]);
export const BINARY_BYTES = 4096;
export const VERSION_AT = 6;
export const HEADER_BYTES_AT = 8;
export const SEQUENCE_AT = 16;
export const HEADER_OFFSET_AT = 256;
export const CHECKSUM_AT = 448;
export const CHECKSUM_BYTES = 64;

const KIB = 1024;
/** Bytes of one copy, its JSON text included. */
export const COPY_BYTES = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096].map((kib) => kib * KIB);

/** Numbers of 64 bits are read by their places: no wrong one may fail before it is named. */
export const BINARY = struct('LUKS2 header', [
  bytes('magic', 6),
  u16('version'),
  bytes('headerBytes', 8),
  bytes('sequence', 8),
  bytes('label', 48),
  bytes('checksumName', 32),
  bytes('salt', 64),
  bytes('uuid', 40),
  bytes('subsystem', 48),
  bytes('headerOffset', 8),
  bytes('padding', 184),
  bytes('checksum', CHECKSUM_BYTES),
]);

assertLayout(BINARY, { 1: CHECKSUM_AT + CHECKSUM_BYTES });

export type RawBinary = StructValue<typeof BINARY>;
