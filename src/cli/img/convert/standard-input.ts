// SPDX-License-Identifier: Apache-2.0
// Standard input as the source of a conversion: `-` instead of a name.
//
// Its length is known at its end only and images are read at any place, so that it is kept in a
// temporary file that nobody else may read; runs of zeroes become holes there. The file is gone
// when the conversion ends, whichever way.

import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { isZero } from '../../../codec/index.js';

/** The operand that means it. */
export const STANDARD_INPUT = '-';

/** Keeps all of `input` in a file while `use` runs with that file's name. */
export async function withStandardInput<T>(
  input: AsyncIterable<Uint8Array>,
  use: (path: string) => Promise<T>,
): Promise<T> {
  // Loaded for this alone.
  const { mkdtemp, open, rm } = await import('node:fs/promises');
  const folder = await mkdtemp(join(tmpdir(), 'blockwright-input-'));
  try {
    const path = join(folder, 'input');
    const file = await open(path, 'wx', 0o600);
    try {
      await keep(file, input);
    } finally {
      await file.close();
    }
    return await use(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function keep(file: FileHandle, input: AsyncIterable<Uint8Array>): Promise<void> {
  let length = 0;
  for await (const bytes of input) {
    if (!isZero(bytes)) await writeAll(file, bytes, length);
    length += bytes.length;
  }
  await file.truncate(length);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done);
    done += bytesWritten;
  }
}
