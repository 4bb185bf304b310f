// SPDX-License-Identifier: Apache-2.0
// The VM state of an image (`-b`): no format here stores one, which is said by name; the request
// itself fails as it does with a format that has none.

import { CommandFailure } from './command.js';
import { report } from '../program.js';
import type { Shell } from './shell.js';

export function refuseVmState(shell: Shell, name: string): never {
  report(shell.program, "option '-b' (the VM state of an image) is not supported");
  throw new CommandFailure(`${name} failed: Operation not supported`);
}
