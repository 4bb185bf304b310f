// SPDX-License-Identifier: Apache-2.0
// An engine over a simulated host with one LUKS image open, whose keyslots change by
// `x-blockdev-amend`; and what its keyslots are good for, in memory and on disk.

import type { JsonObject } from '../../src/base/index.js';
import { HEADER_BYTES, parseLuksHeader } from '../../src/crypto/luks/index.js';
import { createEngine } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import type { Job } from '../../src/jobs/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import { slotPasswords } from './luks-images.js';

export const PASSWORDS = ['one', 'two', 'new'] as const;
const PATH = '/a.luks';

export type Members = Readonly<Record<string, unknown>>;

export class KeyslotStage {
  readonly host: MemoryHost;
  engine!: Engine;

  constructor(host: MemoryHost) {
    this.host = host;
  }

  /** Opens the image with the first password, as node `l` over node `f`. */
  async start(image: Uint8Array): Promise<this> {
    this.host.putFile(PATH, image);
    this.engine = await createEngine({ host: this.host, lanes: 0 });
    for (const data of PASSWORDS) {
      await this.run('object-add', { 'qom-type': 'secret', id: data, data });
    }
    await this.run('blockdev-add', { driver: 'file', 'node-name': 'f', filename: PATH });
    await this.run('blockdev-add', {
      driver: 'luks', 'node-name': 'l', file: 'f', 'key-secret': 'one',
    });
    return this;
  }

  async run(command: string, args: Members): Promise<unknown> {
    const plain = withoutPrototype(args) as JsonObject;
    return await runCommand(this.engine, { command, args: plain, outOfBand: false });
  }

  /** The job, which runs; no time is measured for a new password. */
  async begin(change: Members, force = false): Promise<Job> {
    const options = {
      driver: 'luks', ...change, ...(change['state'] === 'active' && { 'iter-time': 0 }),
    };
    await this.run('x-blockdev-amend', { 'job-id': 'j', 'node-name': 'l', options, force });
    return this.engine.jobs.require('j');
  }

  /** What the job says went wrong, or null. */
  async amend(change: Members, force = false): Promise<string | null> {
    const job = await this.begin(change, force);
    await job.ended;
    const { error } = job.info();
    await job.dismiss();
    return error ?? null;
  }

  /** As the open node says. */
  inMemory(): boolean[] {
    const info = this.engine.graph.require('l').driverNode.info?.();
    const data = info?.specific?.data as { readonly slots: readonly { active: boolean }[] };
    return data.slots.map(({ active }) => active);
  }

  onDisk(host: MemoryHost = this.host): Promise<string[]> {
    return slotsIn(host.fileContents(PATH));
  }

  /** Whether nobody keeps others from the file. */
  isFree(): boolean {
    const { permissions } = [...this.engine.graph.require('f').parents][0] as {
      permissions: { taken: number; shared: number };
    };
    return (permissions.taken & 2) === 0 && (permissions.shared & 3) === 3;
  }

  async end(): Promise<void> {
    await this.engine.close().catch(() => undefined);
  }
}

/** For each keyslot the password that opens it, `erased` or `broken`. */
export function slotsIn(image: Uint8Array): Promise<string[]> {
  const header = parseLuksHeader(image.subarray(0, HEADER_BYTES), { detached: false });
  return slotPasswords(image, header, PASSWORDS);
}

function withoutPrototype(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, member]) => [name, withoutPrototype(member)]);
  return Object.assign(Object.create(null) as object, Object.fromEntries(entries));
}
