// SPDX-License-Identifier: Apache-2.0
// An engine over a simulated host with one image open, LUKS alone, with its header apart or in
// qcow2, whose keyslots change by `x-blockdev-amend`; and what its keyslots are good for, in memory
// and on disk.

import type { JsonObject } from '../../src/base/index.js';
import { HEADER_BYTES, parseLuksHeader } from '../../src/crypto/luks/index.js';
import { createEngine } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import type { Job } from '../../src/jobs/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import { inQcow2, luksOfQcow2, slotPasswords } from './luks-images.js';

export const PASSWORDS = ['one', 'two', 'new'] as const;
const PATH = '/a';
const PAYLOAD_PATH = '/payload';

export type Members = Readonly<Record<string, unknown>>;

export type KeyslotHolder = 'luks' | 'apart' | 'qcow2';

interface LuksData {
  readonly slots: readonly { readonly active: boolean }[];
}

export class KeyslotStage {
  readonly host: MemoryHost;
  readonly #holder: KeyslotHolder;
  engine!: Engine;

  constructor(host: MemoryHost, holder: KeyslotHolder = 'luks') {
    this.host = host;
    this.#holder = holder;
  }

  get #driver(): 'luks' | 'qcow2' {
    return this.#holder === 'qcow2' ? 'qcow2' : 'luks';
  }

  /** Opens the image with the first password, as node `l`; node `f` holds the header. */
  async start(image: Uint8Array): Promise<this> {
    const isLuks = this.#driver === 'luks';
    this.host.putFile(PATH, isLuks ? image : inQcow2(image));
    this.engine = await createEngine({ host: this.host, lanes: 0 });
    for (const data of PASSWORDS) {
      await this.run('object-add', { 'qom-type': 'secret', id: data, data });
    }
    await this.run('blockdev-add', { driver: 'file', 'node-name': 'f', filename: PATH });
    const encrypt = { format: 'luks', 'key-secret': 'one' };
    const isApart = this.#holder === 'apart';
    if (isApart) {
      this.host.putFile(PAYLOAD_PATH, new Uint8Array(image.length));
      const payload = { driver: 'file', 'node-name': 'p', filename: PAYLOAD_PATH };
      await this.run('blockdev-add', payload);
    }
    await this.run('blockdev-add', {
      driver: this.#driver, 'node-name': 'l',
      ...(isApart ? { file: 'p', header: 'f' } : { file: 'f' }),
      ...(isLuks ? { 'key-secret': 'one' } : { encrypt }),
    });
    return this;
  }

  async run(command: string, args: Members): Promise<unknown> {
    const plain = withoutPrototype(args) as JsonObject;
    return await runCommand(this.engine, { command, args: plain, outOfBand: false });
  }

  /** The job, which runs; no time is measured for a new password. */
  async begin(change: Members, force = false, id = 'j'): Promise<Job> {
    const members = { ...change, ...(change['state'] === 'active' && { 'iter-time': 0 }) };
    const options = {
      driver: this.#driver,
      ...(this.#driver === 'luks' ? members : { encrypt: { format: 'luks', ...members } }),
    };
    await this.run('x-blockdev-amend', { 'job-id': id, 'node-name': 'l', options, force });
    return this.engine.jobs.require(id);
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
    const data = info?.specific?.data as Partial<LuksData> & { readonly encrypt?: LuksData };
    return ((data.encrypt ?? data).slots ?? []).map(({ active }) => active);
  }

  onDisk(host: MemoryHost = this.host): Promise<string[]> {
    const bytes = host.fileContents(PATH);
    return slotsIn(this.#driver === 'luks' ? bytes : luksOfQcow2(bytes));
  }

  /** Whether nobody keeps others from the file. */
  isFree(): boolean {
    const { permissions } = [...this.engine.graph.require('f').parents][0] as {
      permissions: { taken: number; shared: number };
    };
    // A qcow2 image is written by nobody else at any time.
    if (this.#driver === 'qcow2') return (permissions.shared & 1) === 1;
    // A header that lies apart is written by nobody else either.
    const needed = this.#holder === 'apart' ? 1 : 3;
    return (permissions.taken & 2) === 0 && (permissions.shared & needed) === needed;
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

/** As the command's parser makes objects. */
export function withoutPrototype(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutPrototype);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(withoutPrototype);
  const entries = Object.entries(value).map(([name, member]) => [name, withoutPrototype(member)]);
  return Object.assign(Object.create(null) as object, Object.fromEntries(entries));
}
