// SPDX-License-Identifier: Apache-2.0
// What a driver is: one object per format, protocol or filter, and what its open() returns.
//
// The pipeline (pipeline.ts) stands in front of every DriverNode: it has checked state, range,
// alignment, permission and flags, so a driver works only on valid, aligned requests. What a
// driver does not do is passed to its child or emulated in one place, fallbacks.ts, as `supports`
// says. All data methods are synchronous first (base/settle.ts).
/**
 * Role bits of an edge, the spelling of `x-debug-query-block-graph` aside: what the child holds
 * for its parent.
 */
export const ChildRole = {
    data: 1,
    metadata: 2,
    filtered: 4,
    cow: 8,
    primary: 16,
};
/** Where requests to `node` can be held: at the first node on their way that can; null: nowhere. */
export function breakpointsOf(node) {
    for (let at = node; at !== null; at = at.primary ?? at.filtered) {
        const { breakpoints } = at.driverNode;
        if (breakpoints !== undefined)
            return breakpoints;
    }
    return null;
}
/** How a child of that name is declared: alone, or as a member of a list. */
export function declarationOf(driver, child) {
    const alone = driver.children[child];
    if (alone !== undefined || driver.childLists === undefined)
        return alone;
    const dot = child.lastIndexOf('.');
    return dot < 0 ? undefined : driver.childLists[child.slice(0, dot)];
}
/** Erases the option type for registries; open() still only ever sees validated options. */
export function defineDriver(driver) {
    return driver;
}
