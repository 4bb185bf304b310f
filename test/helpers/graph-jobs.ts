// SPDX-License-Identifier: Apache-2.0
// Random commands on dirty bitmaps, and random jobs that end by themselves or once they are ready.

import type { GraphCommand } from './graph-contest.js';
import type { OptionSource, Options } from './graph-options.js';

/** Commands on bitmaps; each bitmap is known by its name and node. */
export class BitmapSource {
  readonly #options: OptionSource;
  readonly #known: { readonly node: string; readonly name: string }[] = [];

  constructor(options: OptionSource) {
    this.#options = options;
  }

  /** Some bitmap's name; its node may be gone. */
  name(): string {
    return this.#one().name;
  }

  next(count: number): GraphCommand {
    const roll = this.#options.oneOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    if (roll < 4 || this.#known.length === 0) return this.#add(count);
    if (roll < 6) return { execute: 'block-dirty-bitmap-remove', arguments: this.#one() };
    if (roll < 7) return { execute: 'block-dirty-bitmap-clear', arguments: this.#one() };
    if (roll < 8) return { execute: 'block-dirty-bitmap-enable', arguments: this.#one() };
    if (roll < 9) return { execute: 'block-dirty-bitmap-disable', arguments: this.#one() };
    const { node, name: target } = this.#one();
    const bitmaps = Array.from({ length: this.#options.oneOf(1, 2) }, () => {
      const { name, ...rest } = this.#one();
      return this.#options.chance(0.5) ? name : { name, ...rest };
    });
    return { execute: 'block-dirty-bitmap-merge', arguments: { node, target, bitmaps } };
  }

  #one(): { readonly node: string; readonly name: string } {
    const one = this.#options.oneOf(...this.#known, { node: this.#options.name(), name: 'b0' });
    return this.#options.chance(0.1) ? { ...one, node: this.#options.name() } : one;
  }

  #add(count: number): GraphCommand {
    const node = this.#options.name();
    const name = this.#options.chance(0.1) ? 'b0' : `b${count}`;
    this.#known.push({ node, name });
    const args: Options = { node, name };
    if (this.#options.chance(0.3)) {
      args['granularity'] = this.#options.oneOf(512, 65_536, 1000, 256);
    }
    if (this.#options.chance(0.2)) args['disabled'] = true;
    return { execute: 'block-dirty-bitmap-add', arguments: args };
  }
}

export class JobSource {
  readonly #options: OptionSource;
  readonly #bitmap: () => string;

  constructor(options: OptionSource, bitmap: () => string) {
    this.#options = options;
    this.#bitmap = bitmap;
  }

  next(count: number): GraphCommand {
    const make = this.#options.oneOf(
      () => this.#stream(count),
      () => this.backup(count),
      () => this.#commit(count),
      () => this.#mirror(count),
    );
    return make();
  }

  #stream(count: number): GraphCommand {
    const job = `j${count}`;
    const args: Options = {
      'job-id': job,
      device: this.#options.name((driver) => driver === 'qcow2'),
    };
    const roll = this.#options.oneOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    if (roll < 3) args['base-node'] = this.#options.name();
    else if (roll < 5) args['bottom'] = this.#options.name();
    else if (roll < 6) args['base'] = `DIR/${this.#options.oneOf('base', 'mid', 'top')}.qcow2`;
    if (this.#options.chance(0.15)) {
      args['backing-file'] = this.#options.oneOf('DIR/base.qcow2', 'DIR/x');
    }
    if (this.#options.chance(0.1)) args['filter-node-name'] = `f${count}`;
    return { execute: 'block-stream', arguments: args, job };
  }

  backup(count: number): GraphCommand {
    const job = `j${count}`;
    const device = this.#options.name();
    const args: Options = {
      'job-id': job,
      device,
      target: this.#options.name((_, name) => name !== device),
      sync: this.#options.oneOf('full', 'full', 'top', 'none', 'bitmap', 'incremental'),
    };
    // Without a guest that one never ends.
    if (args['sync'] === 'none') args['sync'] = 'full';
    if (String(args['sync']).startsWith('bi') || this.#options.chance(0.05)) {
      args['bitmap'] = this.#bitmap();
      args['bitmap-mode'] = this.#options.oneOf('on-success', 'never', 'always');
    }
    if (this.#options.chance(0.1)) args['compress'] = true;
    if (this.#options.chance(0.1)) args['filter-node-name'] = `f${count}`;
    return { execute: 'blockdev-backup', arguments: args, job };
  }

  #commit(count: number): GraphCommand {
    const job = `j${count}`;
    const args: Options = {
      'job-id': job,
      device: this.#options.name((driver) => driver === 'qcow2'),
    };
    const roll = this.#options.oneOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    if (roll < 3) args['base-node'] = this.#options.name();
    else if (roll < 5) args['base'] = `DIR/${this.#options.oneOf('base', 'mid', 'top')}.qcow2`;
    if (roll % 3 === 1) args['top-node'] = this.#options.name((driver) => driver === 'qcow2');
    else if (roll % 3 === 2) args['top'] = `DIR/${this.#options.oneOf('leaf', 'mid', 'top')}.qcow2`;
    if (this.#options.chance(0.1)) {
      args['backing-file'] = this.#options.oneOf('DIR/base.qcow2', 'DIR/x');
    }
    if (this.#options.chance(0.1)) args['filter-node-name'] = `f${count}`;
    return { execute: 'block-commit', arguments: args, job, ...this.#finish() };
  }

  #mirror(count: number): GraphCommand {
    const job = `j${count}`;
    const device = this.#options.name();
    const args: Options = {
      'job-id': job,
      device,
      target: this.#options.name((_, name) => name !== device),
      sync: this.#options.oneOf('full', 'full', 'top', 'none', 'incremental'),
    };
    if (this.#options.chance(0.1)) args['replaces'] = this.#options.name();
    if (this.#options.chance(0.1)) args['granularity'] = this.#options.oneOf(512, 65_536, 1000);
    if (this.#options.chance(0.1)) args['copy-mode'] = 'write-blocking';
    if (this.#options.chance(0.1)) args['filter-node-name'] = `f${count}`;
    return { execute: 'blockdev-mirror', arguments: args, job, ...this.#finish() };
  }

  #finish(): Pick<GraphCommand, 'finish'> {
    return this.#options.chance(0.3) ? { finish: 'block-job-cancel' } : {};
  }
}
