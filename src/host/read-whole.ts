// SPDX-License-Identifier: Apache-2.0
// A small file as a whole: what a secret or a table of rules is kept in. It may be a pipe.

import { open } from 'node:fs/promises';

import { BlockError, errnoText, secretCopy } from '../base/index.js';

const CHUNK_BYTES = 16 * 1024;

/** Throws kind `too-large` for more than `most` bytes; everything read before that is wiped. */
export async function readWhole(path: string, most: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(most + 1);
  let length = 0;
  try {
    const file = await open(path, 'r').catch((error: unknown) => {
      throw unreadable(path, error, 'Failed to open');
    });
    try {
      while (length <= most) {
        const rest = Math.min(CHUNK_BYTES, bytes.length - length);
        const { bytesRead } = await file.read(bytes, length, rest, null).catch((error: unknown) => {
          throw unreadable(path, error, 'Error reading');
        });
        if (bytesRead === 0) break;
        length += bytesRead;
      }
    } finally {
      await file.close();
    }
    if (length > most) throw tooLong(path, most);
    return secretCopy(bytes.subarray(0, length));
  } finally {
    bytes.fill(0, 0, length);
  }
}

export function tooLong(path: string, most: number): BlockError {
  return new BlockError('too-large', `'${path}' is longer than ${most} bytes`, { path });
}

function unreadable(path: string, error: unknown, what: string): BlockError {
  const code = (error as NodeJS.ErrnoException).code ?? 'EIO';
  // The quotation marks are those that scripts see from the reference.
  const text = `Unable to read ${path}: ${what} file “${path}”: ${errnoText(code)}`;
  return new BlockError('io', text, { path, errno: code });
}
