// SPDX-License-Identifier: Apache-2.0
// Votes: which of several answers has the most voices, and who gave another one.
//
// Answers are compared whole, byte by byte, so nothing is ever believed because of a hash. Where
// two answers have as many voices, the one that came up last wins, as in the reference.
/** Null when nobody voted; a null answer is no vote. */
export function tally(answers, same) {
    const versions = [];
    for (const [voter, value] of answers.entries()) {
        if (value === null)
            continue;
        const known = versions.find((version) => same(version.value, value));
        if (known === undefined)
            versions.unshift({ value, voters: [voter] });
        else
            known.voters.push(voter);
    }
    let winner;
    for (const version of versions) {
        if (winner === undefined || version.voters.length > winner.voters.length)
            winner = version;
    }
    if (winner === undefined)
        return null;
    return { winner, losers: versions.filter((version) => version !== winner) };
}
export function sameBytes(left, right) {
    return Buffer.compare(left, right) === 0;
}
