// SPDX-License-Identifier: Apache-2.0
// Block devices to test with: files behind loop devices, where this machine lets us make them.

import { execFileSync } from 'node:child_process';
import { peer } from './peers.js';

export interface LoopDevice extends Disposable {
  /** `/dev/loopN`. */
  readonly path: string;
}

/** A device over the file, in sectors of the size given; null where it cannot be made. */
export function loopDevice(file: string, sectorBytes = 512): LoopDevice | null {
  const losetup = peer('losetup');
  if (losetup === null) return null;
  let path: string;
  try {
    const args = ['--find', '--show', '--sector-size', String(sectorBytes), file];
    path = execFileSync(losetup, args, { encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    return null;
  }
  return {
    path,
    [Symbol.dispose]() {
      execFileSync(losetup, ['--detach', path]);
    },
  };
}
