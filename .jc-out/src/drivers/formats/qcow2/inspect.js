// SPDX-License-Identifier: Apache-2.0
// A qcow2 image that cannot be worked on, opened only to be reported: it has a feature that is not
// supported, or the file ends before its tables.
//
// Size, header facts and the backing link are there; every attempt at its data is refused by the
// feature's or table's name. Only a truncated file can be checked.
import { BlockError } from '../../../base/index.js';
import { checkImage } from './check/index.js';
import { unsupportedFeature } from './features.js';
import { virtualSizeOf } from './header.js';
import { infoOf } from './info.js';
export class InspectedQcow2 {
    length;
    limits;
    #header;
    #listings;
    #file;
    constructor(file, header, listings) {
        this.#file = file;
        this.#header = header;
        this.#listings = listings;
        this.length = virtualSizeOf(header);
        const { clusterSize } = header.geometry;
        this.limits = {
            requestAlignment: 1,
            maxTransfer: 0,
            optimalZeroes: clusterSize,
            optimalDiscard: clusterSize,
        };
    }
    read() {
        throw this.#refusal();
    }
    blockStatus() {
        throw this.#refusal();
    }
    backingLink() {
        const { backingFile, backingFormat } = this.#header;
        return backingFile === null ? null : { file: backingFile, format: backingFormat };
    }
    check(repair) {
        const isRefused = repair !== 'none' || unsupportedFeature(this.#header) !== null;
        if (isRefused)
            return Promise.reject(this.#refusal());
        return checkImage(this.#file, this.#header, 'none');
    }
    info() {
        return infoOf(this.#header, this.#listings);
    }
    close() {
        return Promise.resolve();
    }
    #refusal() {
        const feature = unsupportedFeature(this.#header);
        const path = this.#file.node.filename;
        if (feature !== null)
            return new BlockError('unsupported', `${path}: ${feature}`, { path });
        const reason = this.#header.truncated ?? 'the file is truncated';
        return new BlockError('corrupt-image', `${path}: ${reason}`, { path });
    }
}
