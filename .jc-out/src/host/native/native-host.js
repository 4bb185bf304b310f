// SPDX-License-Identifier: Apache-2.0
// Files of the operating system through the addon.
import { DescriptorHost } from '../descriptor-host.js';
import { NativeFile } from './native-file.js';
export class NativeHost extends DescriptorHost {
    name = 'native';
    #addon;
    constructor(options) {
        super(options);
        this.#addon = options.addon;
    }
    makeFile(options) {
        return new NativeFile(this.#addon, options);
    }
}
