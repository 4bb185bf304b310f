// SPDX-License-Identifier: Apache-2.0
// The filter `throttle`: reads and writes wait until their throttle group lets them pass.
//
// Writes, zeroes and discards count as writes; flushes and status never wait. While the node is
// drained everything passes, so that a drain does not last as long as the limits would have it.

import { BlockError, settle } from '../../../base/index.js';
import type { Eventually } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
import type { Child, DriverNode, OpenContext, Request } from '../../../block/index.js';
import type { Direction, ThrottleGroup, ThrottleMember } from '../../../block/throttle/index.js';
import type { ThrottleOptions } from './options.js';

export const throttle = defineDriver<ThrottleOptions>({
  name: 'throttle',
  kind: 'filter',
  children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
  supports: {
    read: 'native',
    write: 'native',
    writeZeroes: 'native',
    discard: 'native',
    flush: 'pass',
    blockStatus: 'pass',
    truncate: 'pass',
    planExtents: 'none',
    reserve: 'none',
    compressedWrite: 'native',
    changeBacking: 'none',
    check: 'none',
  },
  strongOptions: ['throttle-group'],
  reopenOptions: ['throttle-group'],
  open: (context, options) => Promise.resolve(openThrottle(context, options)),
});

function openThrottle(context: OpenContext, options: ThrottleOptions): ThrottleNode {
  // Options of a `json:` name are not checked before.
  const name: string | undefined = options['throttle-group'];
  if (name === undefined) {
    throw new BlockError('invalid-option', 'Please specify a throttle group');
  }
  const group = context.throttleGroup?.(name) ?? null;
  if (group === null) {
    throw new BlockError('not-found', `Throttle group '${name}' does not exist`);
  }
  return new ThrottleNode(context.child('file'), group);
}

class ThrottleNode implements DriverNode {
  readonly #file: Child;
  readonly #group: ThrottleGroup;
  readonly #member: ThrottleMember;

  constructor(file: Child, group: ThrottleGroup) {
    this.#file = file;
    this.#group = group;
    this.#member = group.join();
  }

  get length(): number {
    return this.#file.node.length;
  }

  get growsOnWrite(): boolean {
    return this.#file.node.driverNode.growsOnWrite === true;
  }

  get limits(): DriverNode['limits'] {
    return this.#file.node.limits;
  }

  read(request: Request): Eventually<void> {
    return settle(this.#turn('read', request), () => this.#file.node.read(request));
  }

  write(request: Request): Eventually<void> {
    return settle(this.#turn('write', request), () => this.#file.node.write(request));
  }

  writeZeroes(request: Request): Eventually<void> {
    return settle(this.#turn('write', request), () => this.#file.node.writeZeroes(request));
  }

  discard(request: Request): Eventually<void> {
    return settle(this.#turn('write', request), () => this.#file.node.discard(request));
  }

  drainBegin(): void {
    this.#member.suspend();
  }

  drainEnd(): void {
    this.#member.resume();
  }

  /** Another group means another member; a group of another object may bear the same name. */
  reopen(
    context: OpenContext,
    options: Readonly<Record<string, unknown>>,
  ): Promise<DriverNode> {
    const { 'throttle-group': name } = options as ThrottleOptions;
    const same = context.throttleGroup?.(name) === this.#group;
    return Promise.resolve(same ? this : openThrottle(context, options as ThrottleOptions));
  }

  close(): Promise<void> {
    this.#member.leave();
    return Promise.resolve();
  }

  #turn(direction: Direction, request: Request): Eventually<void> {
    return this.#member.enter(direction, request.length);
  }
}
