// SPDX-License-Identifier: Apache-2.0
// Frozen bitmaps: a job works with the bits as they were, a nameless successor records meanwhile.
//
// It ends in one of two ways, each once: the successor takes over name and place, and what was
// recorded before is forgotten (abdicate), or what it recorded goes back into the frozen one
// (reclaim). Both are synchronous, so that no write falls between them.
import { assert } from '../../base/index.js';
import { attachBitmap, checkBitmapUsable, detachBitmap } from './node-bitmaps.js';
/**
 * Freezes a bitmap for `user`, which is named where the bitmap is refused to others. Nothing may
 * be written to the node between the last look at the bits and this. Throws kind `busy`,
 * `read-only` or `invalid-state` with nothing changed.
 */
export function freezeBitmap(node, bitmap, user) {
    checkBitmapUsable(bitmap, 'change');
    const { enabled, granularity } = bitmap;
    const successor = attachBitmap(node, { name: null, size: bitmap.size, granularity, enabled });
    const release = bitmap.hold(user);
    bitmap.enabled = false;
    bitmap.successor = successor;
    let over = false;
    const end = () => {
        assert(!over, 'a frozen bitmap is let go of once');
        over = true;
        release();
        bitmap.successor = null;
    };
    return {
        frozen: bitmap,
        abdicate() {
            end();
            detachBitmap(node, bitmap);
            successor.name = bitmap.name;
            successor.persistent = bitmap.persistent;
            bitmap.name = null;
            return successor;
        },
        reclaim() {
            end();
            bitmap.merge(successor);
            bitmap.enabled = successor.enabled;
            detachBitmap(node, successor);
            return bitmap;
        },
    };
}
