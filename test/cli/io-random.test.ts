// SPDX-License-Identifier: Apache-2.0
// Random commands of `io`, from a seed, through the shim and through the real qemu-io: the same
// output, the same exit status and the same images, which the real qemu-img finds without errors.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { openNativeHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { forEachSeed } from '../helpers/seeds.js';
import { IoTwins } from '../helpers/io-twins.js';

const qemuImg = peer('qemu-img') ?? '';
const qemuIo = peer('qemu-io') ?? '';
const KIB = 1024;
const COMMANDS_PER_SCRIPT = 40;

let twins: IoTwins;

interface Target {
  readonly name: string;
  readonly args: readonly string[];
  /** Bytes. */
  readonly size: number;
  readonly compresses: boolean;
  /** Bytes of a unit that is stored as a whole, where there is one. */
  readonly cluster: number;
}

const TARGETS: readonly Target[] = [
  { name: 'plain.qcow2', args: [], size: 1024 * KIB, compresses: true, cluster: 64 * KIB },
  { name: 'small.qcow2', args: [], size: 1024 * KIB, compresses: true, cluster: 4 * KIB },
  { name: 'top.qcow2', args: [], size: 1024 * KIB, compresses: true, cluster: 64 * KIB },
  { name: 'x.raw', args: ['-f', 'raw'], size: 512 * KIB, compresses: false, cluster: 512 },
];
/** Without the addon a raw file cannot be zeroed without writing zeroes (`write -zn`). */
const PLAYED = TARGETS.filter(({ name }) => name !== 'x.raw' || openNativeHost() !== null);

/** Commands without those beside them: what is printed comes in one order only. */
class Script {
  readonly #random: SeededRandom;
  readonly #target: Target;

  constructor(seed: number, target: Target) {
    this.#random = new SeededRandom(seed);
    this.#target = target;
  }

  lines(): string[] {
    return Array.from({ length: COMMANDS_PER_SCRIPT }, () => this.#command());
  }

  #below(limit: number): number {
    return this.#random.below(limit);
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#below(values.length)] as T;
  }

  /** Mostly aligned to something; sometimes over the end. */
  #range(): string {
    const unit = this.#pick([1, 512, 4 * KIB, this.#target.cluster]);
    const offset = this.#below(Math.floor((this.#target.size * 1.02) / unit)) * unit;
    const length = (1 + this.#below(Math.min(16, (128 * KIB) / unit))) * unit;
    return `${offset} ${length}`;
  }

  #command(): string {
    const pattern = this.#below(256);
    const { cluster, size, compresses } = this.#target;
    const whole = `${this.#below(size / cluster) * cluster} ${cluster}`;
    switch (this.#below(15)) {
      case 0:
      case 1:
      case 2:
        return `write -P ${pattern} ${this.#range()}`;
      case 3:
        return `write -z${this.#pick(['', 'u', 'n', 'un', 'f'])} ${this.#range()}`;
      case 4:
        return `discard ${this.#pick([whole, this.#range()])}`;
      case 5:
        return `read -v ${this.#below(size - 64)} ${this.#below(64)}`;
      case 6:
        return `read -P ${pattern} ${this.#range()}`;
      case 7:
        return compresses ? `write -c -P ${pattern} ${whole}` : 'flush';
      case 8:
        return `alloc ${this.#range()}`;
      case 9:
        return 'map';
      case 10:
        return `writev -P ${pattern} ${this.#range()} ${this.#below(2000)}`;
      case 11:
        return `readv -P ${pattern} ${this.#range()} ${this.#below(2000)}`;
      case 12:
        return this.#pick(['length', 'info', 'flush', 'aio_flush', 'reopen -c writeback']);
      case 13:
        return `write -s abc ${this.#range()}`;
      default:
        return `aio_write -P ${pattern} ${this.#range()}`;
    }
  }
}

/** Each request beside the commands is waited for at once, so that the order is the same. */
function commandsOf(script: Script): string[] {
  return script.lines().flatMap((line) => {
    const commands = line.startsWith('aio_write') ? [line, 'aio_flush'] : [line];
    return commands.flatMap((command) => ['-c', command]);
  });
}

describe.skipIf(qemuImg === '' || qemuIo === '')('random commands', () => {
  beforeAll(() => {
    twins = new IoTwins();
    const create = (...args: readonly string[]): void => {
      twins.prepare(qemuImg, 'create', '-f', 'qcow2', ...args);
    };
    create('plain.qcow2', '1M');
    create('-o', 'cluster_size=4k', 'small.qcow2', '1M');
    create('below.qcow2', '900k');
    twins.prepare(qemuIo, '-c', 'write -P 9 100k 500k', 'below.qcow2');
    create('-b', 'below.qcow2', '-F', 'qcow2', 'top.qcow2', '1M');
    writeFileSync(join(twins.root, 'first', 'x.raw'), Buffer.alloc(512 * KIB));
    writeFileSync(join(twins.root, 'first', 'abc'), 'some text of no round length');
  });

  afterAll(() => twins.remove());

  it.each(PLAYED)('have the same effects on $name', async (target) => {
    await forEachSeed([1, 2, 10, 12], (seed) => {
      twins.reset();
      const args = [...target.args, target.name, ...commandsOf(new Script(seed, target))];
      expect(twins.shim('qemu-io', args)).toEqual(twins.real(qemuIo, args));
      expect(twins.differences(qemuImg)).toEqual([]);
      if (target.name.endsWith('.qcow2')) {
        const check = spawnSync(qemuImg, ['check', join(twins.ours, target.name)]);
        expect(check.status).toBe(0);
      }
      return Promise.resolve();
    });
  });
});
