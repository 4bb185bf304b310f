// SPDX-License-Identifier: Apache-2.0
// Files of the operating system through the addon.

import type { Clock, Random } from '../../base/index.js';
import type { DescriptorFileOptions } from '../descriptor-file.js';
import { DescriptorHost } from '../descriptor-host.js';
import type { HostFile } from '../host.js';
import type { NativeAddon } from './addon.js';
import { NativeFile } from './native-file.js';

export interface NativeHostOptions {
  readonly addon: NativeAddon;
  readonly clock: Clock;
  readonly random: Random;
}

export class NativeHost extends DescriptorHost {
  readonly name = 'native';
  readonly #addon: NativeAddon;

  constructor(options: NativeHostOptions) {
    super(options);
    this.#addon = options.addon;
  }

  protected override makeFile(options: DescriptorFileOptions): HostFile {
    return new NativeFile(this.#addon, options);
  }
}
