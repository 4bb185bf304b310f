// SPDX-License-Identifier: Apache-2.0
// Files of the operating system through Node's own calls, where the addon is not to be had.
import { DescriptorHost } from '../descriptor-host.js';
import { NodeFile } from './node-file.js';
export class NodeHost extends DescriptorHost {
    name = 'node';
    #warn;
    #warned = false;
    constructor(options) {
        super(options);
        this.#warn = options.warn;
    }
    makeFile(options) {
        if (!options.readOnly && !this.#warned) {
            this.#warned = true;
            this.#warn('images are not locked against other programs, because the native addon is not built');
        }
        return new NodeFile(options);
    }
}
