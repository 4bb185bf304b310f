// SPDX-License-Identifier: Apache-2.0
// JSON values as the protocols keep them: integers and doubles are apart.
//
// An integer that a double holds exactly is a `number`, any other 64-bit integer is a `bigint`, a
// number written with a point or an exponent (or beyond 64 bits) is a JsonDouble. So `1.0` is no
// integer, and no integer ever loses a digit.
export class JsonDouble {
    value;
    constructor(value) {
        this.value = value;
    }
}
