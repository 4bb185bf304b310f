// SPDX-License-Identifier: Apache-2.0
// The VM state of an image (`-b`): an address space of its own, in formats that have room for it.

import { BlockError } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import { vmStateOf } from '../../block/index.js';
import type { VmState } from '../../block/index.js';
import { cachePolicy } from '../img/session.js';
import type { Shell } from './shell.js';

function vmState({ file }: Shell): VmState {
  const found = vmStateOf(file.node);
  if (found !== null) return found;
  const text = `Node '${file.node.name}' has no room for a VM state`;
  throw new BlockError('unsupported', text, { node: file.node.name, errno: 'ENOTSUP' });
}

export function readVmState(shell: Shell, offset: number, buffer: Uint8Array): Promise<void> {
  return entered(shell, () => vmState(shell).read(offset, buffer));
}

/** Durable when it resolves where the cache mode writes through. */
export function writeVmState(shell: Shell, offset: number, buffer: Uint8Array): Promise<void> {
  const { backend, modes } = shell.file;
  return entered(shell, async () => {
    await vmState(shell).write(offset, buffer);
    if (cachePolicy(modes.cache)?.writeThrough === true) await backend.node.flush();
  });
}

async function entered(shell: Shell, work: () => Eventually<void>): Promise<void> {
  const leave = await shell.file.backend.enter();
  try {
    await work();
  } finally {
    leave();
  }
}
