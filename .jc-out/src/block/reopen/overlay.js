// SPDX-License-Identifier: Apache-2.0
// Putting an overlay on a node: its users move to the overlay, which gets it as backing file.
//
// One drained transaction, which can be undone as long as nothing else has changed; afterwards the
// node is made read-only if nobody minds.
import { BlockError, must, Permission } from '../../base/index.js';
import { ChildRole } from '../driver.js';
import { changeDrained, detachEdge, edgesToMove, moveEdges, noteChild, placeEdge, refuseCycle, } from '../graph-changes.js';
import { renewFilenames } from '../open/node-filename.js';
import { refreshPermissions } from '../permissions.js';
import { setReadOnly } from './reopen.js';
/** Throws with nothing changed when the overlay is in use or cannot have that backing file. */
export async function appendOverlay(graph, below, overlay) {
    const { options, given } = overlay;
    let users = [];
    await changeDrained(graph, [below, overlay], (tx) => {
        const name = requireOverlay(overlay);
        refuseCycle(overlay, name, below);
        users = edgesToMove(below, overlay);
        tx.add(placeEdge(overlay, name, below));
        tx.add(moveEdges(users, overlay));
        tx.add(refreshPermissions([overlay, below]));
        tx.add(noteChild(overlay, name, below));
    });
    return () => changeDrained(graph, [below, overlay], (tx) => {
        const link = must(overlay.edgeWithRole(ChildRole.cow), 'the overlay has its backing file');
        tx.add(moveEdges(users.filter(({ node }) => node === overlay), below));
        detachEdge(tx, overlay, link);
        tx.add(refreshPermissions([overlay, below]));
        tx.add({
            commit() {
                overlay.options = options;
                overlay.given = given;
                renewFilenames([overlay, below]);
            },
        });
    });
}
/** A node that has got an overlay becomes read-only, unless someone goes on writing to it. */
export async function sealBelow(graph, below) {
    await setReadOnly(graph, below, true).catch(() => undefined);
}
/** The name of the child that the node is going to be. */
function requireOverlay(overlay) {
    const refuse = (text) => {
        throw new BlockError('invalid-option', text, { node: overlay.name });
    };
    if ((overlay.cumulative.taken & Permission.consistentRead) !== 0) {
        return refuse('The overlay is already in use');
    }
    if (overlay.filtered !== null)
        return refuse('Filters cannot be used as overlays');
    if (overlay.backing !== null)
        return refuse('The overlay already has a backing image');
    for (const [name, { role }] of Object.entries(overlay.driver.children)) {
        if ((role & ChildRole.cow) !== 0)
            return name;
    }
    return refuse('The overlay does not support backing images');
}
