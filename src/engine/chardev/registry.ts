// SPDX-License-Identifier: Apache-2.0
// The character devices of a program, by id.
//
// What is added stays until it is removed or the registry is closed, which is the last thing that
// a program does: monitors hand over their last answers before.

import type { ChardevBackendValue } from '../../api/index.js';
import { BlockError, CHARDEV_LIMITS } from '../../base/index.js';
import type { Clock } from '../../base/index.js';
import { openCharInput, openCharOutput, openCharPipe } from '../../host/index.js';
import { nullStreams, RingChardev, silentInput, StreamChardev } from './chardev.js';
import type { Chardev, CharUser } from './chardev.js';
import { openSocketChardev } from './socket.js';

export interface ChardevFacts {
  readonly label: string;
  readonly filename: string;
  readonly 'frontend-open': boolean;
}

/** In the order in which query-chardev-backends lists them. */
export const CHARDEV_KINDS = [
  'pipe',
  'null',
  'ringbuf',
  'stdio',
  'socket',
  'file',
  'memory',
] as const;

/** What a ring buffer has room for when nothing is said. */
const RING_BYTES = 65_536;

export class ChardevRegistry {
  readonly #clock: Clock;
  readonly #quit = new AbortController();
  readonly #chardevs = new Map<string, Chardev>();
  #stdioInUse = false;
  #hasStdio = true;

  /** Waiting for the other side of a socket ends with `quit`. */
  constructor(clock: Clock, quit: Promise<void>) {
    this.#clock = clock;
    void quit.then(() => this.#quit.abort());
  }

  get entries(): ReadonlyMap<string, Chardev> {
    return this.#chardevs;
  }

  /** For a program in the background, whose standard streams are nobody's. */
  giveUpStdio(): void {
    this.#hasStdio = false;
  }

  /** Throws with the reason alone and nothing added; `exists` for an id that is taken. */
  async add(id: string, backend: ChardevBackendValue): Promise<void> {
    // Every container has the property `type`.
    if (id === 'type' || this.#chardevs.has(id)) {
      throw new BlockError(
        'exists',
        `attempt to add duplicate property '${id}' to object (type 'container')`,
      );
    }
    if (this.#chardevs.size >= CHARDEV_LIMITS.devices) {
      const text = `there are ${CHARDEV_LIMITS.devices} character devices, which is the limit`;
      throw new BlockError('no-space', text);
    }
    this.#chardevs.set(id, await this.#open(backend));
  }

  /** Puts another device in its place. The old one is gone even when the new one fails. */
  async change(id: string, backend: ChardevBackendValue): Promise<void> {
    const old = this.#chardevs.get(id);
    if (old === undefined) throw new BlockError('not-found', `Chardev '${id}' does not exist`);
    if (old.inUse) {
      throw new BlockError('unsupported', 'Chardev user does not support chardev hotswap');
    }
    // First, since both may be at one address.
    this.#chardevs.delete(id);
    await old.close();
    await this.add(id, backend).catch((error: unknown) => {
      throw failedToAdd(id, error);
    });
  }

  async remove(id: string): Promise<void> {
    const chardev = this.#require(id);
    if (chardev.inUse) throw new BlockError('busy', `Chardev '${id}' is busy`);
    this.#chardevs.delete(id);
    await chardev.close();
  }

  /** None of these devices has a line on which a break could be seen. */
  sendBreak(id: string): void {
    this.#require(id);
  }

  list(): ChardevFacts[] {
    return [...this.#chardevs].map(([label, { filename, inUse }]) => ({
      label,
      filename,
      'frontend-open': inUse,
    }));
  }

  /** Gives every client of a device to `user`, which is the only one. */
  attach(id: string, user: CharUser): void {
    const chardev = this.#chardevs.get(id);
    if (chardev === undefined) throw new BlockError('not-found', `chardev "${id}" not found`);
    if (!chardev.attach(user)) throw new BlockError('busy', `Device '${id}' is in use`);
  }

  ring(id: string): RingChardev {
    const chardev = this.#chardevs.get(id);
    if (chardev === undefined) throw new BlockError('not-found', `Device '${id}' not found`);
    if (!(chardev instanceof RingChardev)) {
      throw new BlockError('invalid-option', `${id} is not a ringbuf device`);
    }
    return chardev;
  }

  /** Closes what nobody uses: the end of an engine, whose monitors still have something to say. */
  closeUnused(): Promise<void> {
    return this.#close(({ inUse }) => !inUse);
  }

  close(): Promise<void> {
    return this.#close(() => true);
  }

  async #close(which: (chardev: Chardev) => boolean): Promise<void> {
    const chosen = [...this.#chardevs].filter(([, chardev]) => which(chardev));
    for (const [id] of chosen) this.#chardevs.delete(id);
    await Promise.all(chosen.map(([, chardev]) => chardev.close()));
  }

  #require(id: string): Chardev {
    const chardev = this.#chardevs.get(id);
    if (chardev === undefined) throw new BlockError('not-found', `Chardev '${id}' not found`);
    return chardev;
  }

  async #open(backend: ChardevBackendValue): Promise<Chardev> {
    const isOurs = (CHARDEV_KINDS as readonly string[]).includes(backend.type);
    if (isOurs && backend.data.logfile !== undefined) {
      throw new BlockError('unsupported', "'logfile' of a chardev is not supported");
    }
    switch (backend.type) {
      case 'null':
        return new StreamChardev('null', nullStreams());
      case 'ringbuf':
      case 'memory':
        return new RingChardev(backend.type, backend.data.size ?? RING_BYTES, this.#ringRoom());
      case 'file': {
        const { in: from, out, append = false } = backend.data;
        const input = from === undefined ? silentInput() : openCharInput(from);
        return new StreamChardev('file', { input, output: openCharOutput(out, append) });
      }
      case 'pipe':
        return new StreamChardev('pipe', openCharPipe(backend.data.device));
      case 'stdio':
        return this.#openStdio();
      case 'socket':
        return openSocketChardev(backend.data, { clock: this.#clock, quit: this.#quit.signal });
      default: {
        const text = `'${backend.type}' is not a valid char driver name`;
        throw new BlockError('unsupported', text);
      }
    }
  }

  #ringRoom(): number {
    let room = CHARDEV_LIMITS.ringBytes;
    for (const chardev of this.#chardevs.values()) {
      if (chardev instanceof RingChardev) room -= chardev.size;
    }
    return room;
  }

  #openStdio(): Chardev {
    if (!this.#hasStdio) {
      throw new BlockError('unsupported', 'cannot use stdio with -daemonize');
    }
    if (this.#stdioInUse) {
      throw new BlockError('busy', 'cannot use stdio by multiple character devices');
    }
    this.#stdioInUse = true;
    const streams = { input: process.stdin, output: process.stdout };
    return new StreamChardev('stdio', streams, () => {
      this.#stdioInUse = false;
    });
  }
}

/** What chardev-add says of a failure. */
export function failedToAdd(id: string, error: unknown): unknown {
  if (!(error instanceof BlockError)) return error;
  const text = `Failed to add chardev '${id}': ${error.message}`;
  return new BlockError(error.kind, text, error.context);
}
