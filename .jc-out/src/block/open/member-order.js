// SPDX-License-Identifier: Apache-2.0
// The order in which the reference prints members of `json:` names: by the slot of its hash table.
//
// Names that mean the same are then the same text, as scripts that compare them expect. Only the
// low bits of the hash decide, so no more of it is computed.
const SLOTS = 512;
const PER_BYTE = 431;
const FACTOR = 107;
const SUMMAND = 57;
/** The byte at index i is shifted by i times 5, modulo 24. */
const SHIFT_STEP = 5;
const SHIFT_LIMIT = 24;
function slotOf(name) {
    const bytes = Buffer.from(name);
    let value = PER_BYTE * bytes.length;
    for (const [index, byte] of bytes.entries()) {
        value += (byte << ((index * SHIFT_STEP) % SHIFT_LIMIT)) % SLOTS;
    }
    return ((value % SLOTS) * FACTOR + SUMMAND) % SLOTS;
}
/** The same members in that order; those of one slot stay as they are. */
export function inMemberOrder(members) {
    return Object.fromEntries(sortedByName(Object.entries(members)));
}
/** Pairs of a name and something in that order. */
export function sortedByName(pairs) {
    const slots = [...pairs].map((entry) => ({ entry, slot: slotOf(entry[0]) }));
    const sorted = slots.toSorted((left, right) => left.slot - right.slot);
    return sorted.map(({ entry }) => entry);
}
