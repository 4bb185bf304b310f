// SPDX-License-Identifier: Apache-2.0
// Zstd as qcow2 stores it: one cluster at a time, in one frame or several, bytes behind ignored.
//
// The codec is Node's own where there is one (22.15 and later), otherwise a WebAssembly build of
// the reference library. It is loaded by the first image that needs it: loadZstd() first, all else
// is synchronous then. Frames are measured (zstd-frame.ts) before a decoder sees them, and give no
// more than the cluster has room for.

import type * as Wasm from '@bokuweb/zstd-wasm';
import { assert, CODEC_LIMITS } from '../base/index.js';
import { damaged, zstdFrame } from './zstd-frame.js';

/** One frame at a time; both throw anything. */
interface ZstdCodec {
  compress(input: Uint8Array): Uint8Array;
  /** `input` is one frame; `most` is at least 1 and its content size, where it has one. */
  decompress(input: Uint8Array, most: number): Uint8Array;
}

/** What Node 22.15 added to node:zlib; its types here are those of the oldest Node supported. */
interface NodeZstd {
  readonly constants: Readonly<Record<string, number>>;
  zstdCompressSync(input: Uint8Array, options: object): Uint8Array;
  zstdDecompressSync(input: Uint8Array, options: object): Uint8Array;
}

/** The reference's default. */
const LEVEL = 3;

let codec: ZstdCodec | null = null;
let loading: Promise<void> | null = null;

/** Nothing to wait for when it is there already. */
export function loadZstd(): Promise<void> | undefined {
  if (codec !== null) return undefined;
  loading ??= load().finally(() => {
    loading = null;
  });
  return loading;
}

async function load(): Promise<void> {
  const zlib = process.getBuiltinModule('node:zlib') as unknown as Partial<NodeZstd>;
  codec =
    zlib.zstdDecompressSync === undefined
      ? await wasmCodec()
      : nodeCodec(zlib as unknown as NodeZstd);
}

function nodeCodec(zlib: NodeZstd): ZstdCodec {
  const { ZSTD_c_compressionLevel: level, ZSTD_d_windowLogMax: window } = zlib.constants;
  const compression = { [Number(level)]: LEVEL };
  const windowLog = Math.ceil(Math.log2(CODEC_LIMITS.zstdWindowBytes));
  const decompression = { [Number(window)]: windowLog };
  return {
    compress: (input) =>
      zlib.zstdCompressSync(input, { params: compression, pledgedSrcSize: input.length }),
    decompress: (input, most) =>
      zlib.zstdDecompressSync(input, {
        params: decompression,
        maxOutputLength: most,
        chunkSize: Math.max(64, most),
      }),
  };
}

/** Beginning it anew ruins it for all who have it: the bundles of a process begin it once. */
const WASM_BEGUN = Symbol.for('blockwright.zstd-wasm');

async function wasmCodec(): Promise<ZstdCodec> {
  const wasm: typeof Wasm = await import('@bokuweb/zstd-wasm');
  const shared = globalThis as { [WASM_BEGUN]?: Promise<void> };
  await (shared[WASM_BEGUN] ??= wasm.init());
  return {
    compress: (input) => wasm.compress(input, LEVEL),
    decompress: (input, most) => wasm.decompress(input, { defaultHeapSize: most }),
  };
}

function loaded(): ZstdCodec {
  assert(codec !== null, 'loadZstd() comes first');
  return codec;
}

/** As deflateCluster(), in one zstd frame. */
export function zstdCluster(input: Uint8Array, maxLength: number): Uint8Array | null {
  const output = loaded().compress(input);
  return output.length <= maxLength ? output : null;
}

/**
 * The `outputLength` bytes that the frames at the beginning of `input` give together. Throws kind
 * `corrupt-image` when they are damaged or give another amount.
 */
export function unzstdCluster(input: Uint8Array, outputLength: number): Uint8Array {
  let output: Uint8Array | null = null;
  let filled = 0;
  for (let at = 0; filled < outputLength; ) {
    const frame = zstdFrame(input.subarray(at));
    const bytes = input.subarray(at, at + frame.length);
    at += frame.length;
    if (frame.skippable) continue;
    const room = outputLength - filled;
    const { contentLength } = frame;
    if (contentLength !== null && contentLength > room) {
      throw damaged(`it gives more than ${outputLength} bytes`);
    }
    const part = decoded(bytes, contentLength ?? room);
    if (part.length === outputLength) return part;
    output ??= new Uint8Array(outputLength);
    if (part.length > room) throw damaged(`it gives more than ${outputLength} bytes`);
    output.set(part, filled);
    filled += part.length;
  }
  return output ?? new Uint8Array(0);
}

function decoded(frame: Uint8Array, most: number): Uint8Array {
  try {
    return loaded().decompress(frame, Math.max(1, most));
  } catch (error) {
    throw damaged(error instanceof Error ? error.message : String(error), error);
  }
}
