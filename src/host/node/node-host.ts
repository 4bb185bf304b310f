// SPDX-License-Identifier: Apache-2.0
// Files of the operating system through Node's own calls, where the addon is not to be had.

import type { Clock, Random } from '../../base/index.js';
import type { DescriptorFileOptions } from '../descriptor-file.js';
import { DescriptorHost } from '../descriptor-host.js';
import type { HostFile } from '../host.js';
import { NodeFile } from './node-file.js';

export interface NodeHostOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Called with one line, once, when a file is first opened for writing. */
  readonly warn: (line: string) => void;
}

export class NodeHost extends DescriptorHost {
  readonly name = 'node';
  readonly #warn: (line: string) => void;
  #warned = false;

  constructor(options: NodeHostOptions) {
    super(options);
    this.#warn = options.warn;
  }

  protected override makeFile(options: DescriptorFileOptions): HostFile {
    if (!options.readOnly && !this.#warned) {
      this.#warned = true;
      this.#warn(
        'images are not locked against other programs, because the native addon is not built',
      );
    }
    return new NodeFile(options);
  }
}
