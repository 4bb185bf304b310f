// SPDX-License-Identifier: Apache-2.0
// Opening images as command lines do: by path, with a format or with probing.
import { rootContext, withPrefix } from './make-node.js';
import { openNamed } from './open.js';
/** Errors begin with the path, as command lines print them. */
export async function openImage(graph, request, policy) {
    const inherited = { ...rootContext(policy), readOnly: request.readOnly };
    try {
        return await openNamed(graph, { path: request.path, format: request.format }, inherited);
    }
    catch (error) {
        throw withPrefix(`Could not open '${request.path}': `, error);
    }
}
