// SPDX-License-Identifier: Apache-2.0
// An engine over a simulated host that knows what is open, for one command with faults: everything
// that a refused command must leave as it was can be taken down and compared.

import { createHash } from 'node:crypto';

import type { JsonObject } from '../../src/base/index.js';
import { bitmapsOf } from '../../src/block/index.js';
import type { Backend, DirtyBitmap, DriverNode, Graph } from '../../src/block/index.js';
import { createEngine } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import { MemoryHost } from '../../src/host/index.js';
import type { HostFile } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import { makeFile, pattern, READ_WRITE } from './graph.js';
import { readAll } from './job-stage.js';
import { createOn } from './qcow2-create.js';

export const MIB = 2 ** 20;
const SIZE = MIB / 4;

export type Arguments = Readonly<Record<string, unknown>>;
export type Command = readonly [name: string, args: Arguments];

/** Counts the files that are open. */
class CountingHost extends MemoryHost {
  openFiles = 0;

  override openFileNow(...args: Parameters<MemoryHost['openFileNow']>): HostFile {
    return this.#counted(super.openFileNow(...args));
  }

  override async createFile(path: string): Promise<HostFile> {
    return this.#counted(await super.createFile(path));
  }

  #counted(file: HostFile): HostFile {
    this.openFiles += 1;
    let open = true;
    const close = file.close.bind(file);
    file.close = () => {
      if (open) this.openFiles -= 1;
      open = false;
      return close();
    };
    return file;
  }
}

export interface Picture {
  readonly nodes: unknown;
  readonly jobs: readonly string[];
  readonly objects: unknown;
  readonly openFiles: number;
  /** Files that somebody else could write to, by name. */
  readonly lockable: readonly string[];
  readonly contents: Readonly<Record<string, string>>;
}

function showBitmap(bitmap: DirtyBitmap): unknown {
  const { name, granularity, enabled, busy, persistent, count } = bitmap;
  const bits = Buffer.concat([...bitmap.parts()]).toString('hex');
  return { name, granularity, enabled, busy, persistent, count, bits };
}

export class FaultStage {
  readonly host = new CountingHost();
  engine!: Engine;
  #guest: Backend | null = null;
  readonly #instances = new Map<DriverNode, number>();

  /** Files: base and top (qcow2, one over the other), other (qcow2), disk and log (raw). */
  async start(setup: readonly Command[], guest: string | null): Promise<void> {
    const { host } = this;
    const small = { size: SIZE, 'cluster-size': 4096 };
    await createOn(host, '/base', small);
    await createOn(host, '/top', {
      ...small,
      'backing-file': '/base',
      'backing-fmt': 'qcow2',
    });
    await createOn(host, '/other', small);
    await makeFile(host, '/disk', pattern(SIZE, 5));
    await makeFile(host, '/log', SIZE);
    host.openFiles = 0;
    this.engine = await createEngine({ host, lanes: 0 });
    for (const command of setup) await this.run(command);
    if (guest === null) return;
    this.#guest = await this.graph.attach(this.graph.require(guest), 'guest', READ_WRITE);
    await this.#guest.write(8192, pattern(20_000, 3));
  }

  get graph(): Graph {
    return this.engine.graph;
  }

  async run([command, args]: Command): Promise<unknown> {
    const plain = Object.assign(Object.create(null) as JsonObject, args);
    return await runCommand(this.engine, { command, args: plain, outOfBand: false });
  }

  /** Everything that can be seen; instances by identity. */
  async picture(instances = true): Promise<Picture> {
    const nodes = [...this.graph.nodes].map((node) => ({
      name: node.name,
      readOnly: node.readOnly,
      options: { ...node.options },
      filename: node.filename,
      // A file may have grown by clusters that nobody uses.
      length: node.driver.kind === 'protocol' ? null : node.length,
      link: node.backingLink(),
      instance: instances ? this.#numberOf(node.driverNode) : null,
      parents: node.parents.size,
      bitmaps: bitmapsOf(node).map(showBitmap),
      children: [...node.children.values()].map((child) => [
        child.name,
        child.node.name,
        { ...child.permissions },
        child.frozenBy,
      ]),
    }));
    return {
      nodes,
      jobs: [...this.engine.jobs.list()].map(({ id }) => id),
      objects: this.engine.objects.throttleGroup('g') === null ? [] : ['g'],
      openFiles: this.host.openFiles,
      lockable: await this.lockable(),
      contents: await this.#contents(),
    };
  }

  async lockable(): Promise<string[]> {
    const free: string[] = [];
    for (const path of ['/base', '/top', '/other', '/disk', '/log']) {
      const file = await this.host.openFile(path, { readOnly: true });
      try {
        file.lock({ taken: 2, unshared: 2 });
        free.push(path);
      } catch {
        // Somebody uses it.
      }
      await file.close();
    }
    return free;
  }

  /** Closes everything; what a fault has done to a file may come out once more. */
  async end(): Promise<void> {
    await this.#guest?.detach().catch(() => undefined);
    this.#guest = null;
    await this.engine.close().catch(() => undefined);
  }

  #numberOf(instance: DriverNode): number {
    const known = this.#instances.get(instance) ?? this.#instances.size;
    this.#instances.set(instance, known);
    return known;
  }

  async #contents(): Promise<Record<string, string>> {
    const contents: Record<string, string> = {};
    for (const node of this.graph.nodes) {
      if (node.driver.name !== 'qcow2' && node.driver.name !== 'raw') continue;
      contents[node.name] = createHash('sha1').update(await readAll(node)).digest('hex');
    }
    return contents;
  }
}
