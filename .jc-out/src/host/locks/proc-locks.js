// SPDX-License-Identifier: Apache-2.0
// What other processes have locked, as Linux lists it in /proc.
//
// Rows read `1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101`: device in hexadecimal, inode, first
// and last byte. The kernel names no process for these locks; the holder is the one whose
// /proc/PID/fdinfo carries the same row.
import { readdirSync, readFileSync } from 'node:fs';
import { PERMISSION_NAMES } from '../../base/index.js';
import { findConflict, TAKEN_BASE, UNSHARED_BASE } from '../file-locks.js';
const ROW = /OFDLCK\s+\S+\s+\S+\s+-?\d+\s+([0-9a-f]+):([0-9a-f]+):(\d+)\s+(\d+)\s+(\d+|EOF)/;
/** What all holders together declare for the file; null when the list cannot be read. */
export function declaredLocks(identity) {
    const rows = readLines('/proc/locks');
    return rows === null ? null : declaredIn(rows, identity);
}
/** The same from given rows, of /proc/locks or of an fdinfo file. */
export function declaredIn(rows, identity) {
    const device = deviceNumbers(identity.device);
    let taken = 0;
    let unshared = 0;
    for (const row of rows) {
        const [, major, minor, inode, first, last] = ROW.exec(row) ?? [];
        if (major === undefined || minor === undefined || inode !== identity.inode)
            continue;
        if (Number.parseInt(major, 16) !== device.major)
            continue;
        if (Number.parseInt(minor, 16) !== device.minor)
            continue;
        const from = Number(first);
        const to = last === 'EOF' ? Infinity : Number(last);
        for (let bit = 0; bit < PERMISSION_NAMES.length; bit += 1) {
            if (from <= TAKEN_BASE + bit && TAKEN_BASE + bit <= to)
                taken |= 1 << bit;
            if (from <= UNSHARED_BASE + bit && UNSHARED_BASE + bit <= to)
                unshared |= 1 << bit;
        }
    }
    return { taken, unshared };
}
/**
 * Which process is in the way of `wanted`: `process 1 (name)`; undefined where that cannot be seen.
 * Looks at every process that may be looked at: for refusals only.
 */
export function holderOf(identity, wanted) {
    for (const entry of listFolder('/proc')) {
        if (!/^\d+$/.test(entry) || Number(entry) === process.pid)
            continue;
        for (const descriptor of listFolder(`/proc/${entry}/fdinfo`)) {
            const rows = readLines(`/proc/${entry}/fdinfo/${descriptor}`) ?? [];
            if (findConflict(wanted, declaredIn(rows, identity)) === null)
                continue;
            const name = readLines(`/proc/${entry}/comm`)?.[0] ?? 'unknown';
            return `process ${entry} (${name})`;
        }
    }
    return undefined;
}
function deviceNumbers(device) {
    const value = BigInt(device);
    return {
        major: Number(((value >> 8n) & 0xfffn) | ((value >> 32n) & ~0xfffn)),
        minor: Number((value & 0xffn) | ((value >> 12n) & ~0xffn)),
    };
}
function readLines(path) {
    try {
        return readFileSync(path, 'latin1').split('\n');
    }
    catch {
        return null;
    }
}
function listFolder(path) {
    try {
        return readdirSync(path);
    }
    catch {
        return [];
    }
}
