// SPDX-License-Identifier: Apache-2.0
// Finds the real tools that interop tests run against. A missing one is a visible skip
// (`it.skipIf(tool === null)`), and a failure when REQUIRE_PEERS=1, which CI sets.
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Folders that hold administrators' tools and are not on every user's PATH. */
const EXTRA_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

const found = new Map<string, string | null>();

/** Path of a program, or null; throws when it is missing and REQUIRE_PEERS=1. */
export function peer(name: string): string | null {
  let path = found.get(name);
  if (path === undefined) {
    path = look(name);
    found.set(name, path);
  }
  if (path === null && process.env['REQUIRE_PEERS'] === '1') {
    throw new Error(`REQUIRE_PEERS=1 and ${name} is not installed`);
  }
  return path;
}

function look(name: string): string | null {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  for (const folder of [...folders, ...EXTRA_FOLDERS]) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      continue;
    }
  }
  return null;
}
