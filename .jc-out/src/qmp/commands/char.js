// SPDX-License-Identifier: Apache-2.0
// Character devices by id.
import { BlockError } from '../../base/index.js';
import { CHARDEV_KINDS, failedToAdd } from '../../engine/chardev/index.js';
export const charCommands = {
    'query-chardev': (engine) => engine.chardevs.list(),
    'query-chardev-backends': () => CHARDEV_KINDS.map((name) => ({ name })),
    'ringbuf-write': (engine, { device, data, format }) => {
        const ring = engine.chardevs.ring(device);
        ring.write(format === 'base64' ? bytesOfBase64(data) : Buffer.from(data, 'utf8'));
    },
    'ringbuf-read': (engine, { device, size, format }) => {
        const ring = engine.chardevs.ring(device);
        if (size <= 0)
            throw new BlockError('invalid-option', 'size must be greater than zero');
        return ring.read(Number(size)).toString(format ?? 'utf8');
    },
    'chardev-add': async (engine, { id, backend }) => {
        if (engine.chardevs.entries.has(id)) {
            throw new BlockError('exists', `Chardev with id '${id}' already exists`);
        }
        try {
            await engine.chardevs.add(id, backend);
        }
        catch (error) {
            throw failedToAdd(id, error);
        }
        return {};
    },
    'chardev-change': async (engine, { id, backend }) => {
        await engine.chardevs.change(id, backend);
        return {};
    },
    'chardev-remove': (engine, { id }) => engine.chardevs.remove(id),
    'chardev-send-break': (engine, { id }) => engine.chardevs.sendBreak(id),
};
/** Whole groups of four characters count; an incomplete last one is left out. */
function bytesOfBase64(text) {
    if (!/^[A-Za-z0-9+/=\n]*$/.test(text)) {
        throw new BlockError('invalid-option', 'Base64 data contains invalid characters');
    }
    const plain = text.replaceAll('\n', '');
    return Buffer.from(plain.slice(0, plain.length - (plain.length % 4)), 'base64');
}
