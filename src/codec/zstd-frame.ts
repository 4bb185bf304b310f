// SPDX-License-Identifier: Apache-2.0
// Where a zstd frame ends and what it asks for, read from its headers alone (RFC 8878, section 3).
//
// Decoders are given exactly one frame, never the bytes that happen to follow it, and only after
// its window and content size were compared with what may be spent on it.

import { BlockError, CODEC_LIMITS } from '../base/index.js';

/** A frame at the beginning of some bytes. */
export interface ZstdFrame {
  /** Bytes of the frame, its checksum included. */
  readonly length: number;
  /** Holds nothing that is decoded. */
  readonly skippable: boolean;
  /** What it says to decode to, in bytes; null where it does not say. */
  readonly contentLength: number | null;
}

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const WINDOW_BASE_LOG = 10;
const BLOCK_HEADER_BYTES = 3;
const CHECKSUM_BYTES = 4;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

/** Throws kind `corrupt-image` for what is no whole frame or asks for too much. */
export function zstdFrame(input: Uint8Array): ZstdFrame {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  if (input.length < 5) throw damaged('it ends before a frame');
  const magic = view.getUint32(0, true);
  if (magic >>> 4 === SKIPPABLE_MAGIC >>> 4) {
    if (input.length < 8) throw damaged('it ends in a frame header');
    const length = 8 + view.getUint32(4, true);
    if (length > input.length) throw damaged('it ends in a skippable frame');
    return { length, skippable: true, contentLength: 0 };
  }
  if (magic !== MAGIC) throw damaged('there is no zstd frame');
  const descriptor = view.getUint8(4);
  const { length, contentLength } = frameHeader(view, descriptor);
  const end = blocksEnd(view, length) + ((descriptor & 4) === 0 ? 0 : CHECKSUM_BYTES);
  if (end > input.length) throw damaged('it ends before its checksum');
  return { length: end, skippable: false, contentLength };
}

function frameHeader(
  view: DataView,
  descriptor: number,
): { length: number; contentLength: number | null } {
  const single = (descriptor & 0x20) !== 0;
  if ((descriptor & 8) !== 0) throw damaged('a reserved bit of its frame header is set');
  const sizeFlag = descriptor >>> 6;
  const sizeBytes = sizeFlag === 0 && single ? 1 : (CONTENT_SIZE_BYTES[sizeFlag] ?? 0);
  const idBytes = DICTIONARY_ID_BYTES[descriptor & 3] ?? 0;
  const idAt = single ? 5 : 6;
  const length = idAt + idBytes + sizeBytes;
  if (length > view.byteLength) throw damaged('it ends in a frame header');
  if (!single) requireWindow(view.getUint8(5));
  for (let at = idAt; at < idAt + idBytes; at += 1) {
    if (view.getUint8(at) !== 0) throw damaged('it needs a dictionary');
  }
  return { length, contentLength: contentSize(view, idAt + idBytes, sizeBytes) };
}

function requireWindow(descriptor: number): void {
  const base = 2 ** (WINDOW_BASE_LOG + (descriptor >>> 3));
  const window = base + (base / 8) * (descriptor & 7);
  if (window <= CODEC_LIMITS.zstdWindowBytes) return;
  throw damaged(`its window of ${window} bytes is too large`);
}

function contentSize(view: DataView, at: number, bytes: number): number | null {
  switch (bytes) {
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    case 8:
      return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
    default:
      return null;
  }
}

function blocksEnd(view: DataView, start: number): number {
  for (let at = start; ; ) {
    if (at + BLOCK_HEADER_BYTES > view.byteLength) throw damaged('it ends before its last block');
    const header = view.getUint16(at, true) + view.getUint8(at + 2) * 0x1_0000;
    const type = (header >>> 1) & 3;
    if (type === RESERVED_BLOCK) throw damaged('it has a block of an unknown type');
    at += BLOCK_HEADER_BYTES + (type === RLE_BLOCK ? 1 : header >>> 3);
    if (at > view.byteLength) throw damaged('it ends in a block');
    if ((header & 1) !== 0) return at;
  }
}

export function damaged(reason: string, cause?: unknown): BlockError {
  return new BlockError('corrupt-image', `Compressed cluster is damaged: ${reason}`, { cause });
}
