// SPDX-License-Identifier: Apache-2.0
// Commands for character devices: the streams that monitors speak on.
//
// Every backend of the reference is declared, so that one that is not there is refused by its name
// and not as a mistake of spelling.
import { bool, command, enumeration, int, list, optional, str, struct, uint16, union, } from '../schema/index.js';
/** A branch of the older unions, whose members stand in `data`. */
function wrapped(name, members) {
    return struct(`${name}Wrapper`, { data: struct(name, members) });
}
export const socketAddressLegacy = union('SocketAddressLegacy', {
    discriminator: 'type',
    tagName: 'SocketAddressType',
    branches: {
        inet: wrapped('InetSocketAddress', {
            host: str,
            port: str,
            numeric: optional(bool),
            to: optional(uint16),
            ipv4: optional(bool),
            ipv6: optional(bool),
            'keep-alive': optional(bool),
            mptcp: optional(bool),
        }),
        unix: wrapped('UnixSocketAddress', {
            path: str,
            abstract: optional(bool),
            tight: optional(bool),
        }),
        vsock: wrapped('VsockSocketAddress', { cid: str, port: str }),
        fd: wrapped('String', { str }),
    },
});
const common = { logfile: optional(str), logappend: optional(bool) };
const plain = wrapped('ChardevCommon', common);
const device = wrapped('ChardevHostdev', { ...common, device: str });
const ringbuf = wrapped('ChardevRingbuf', { ...common, size: optional(int) });
export const chardevBackend = union('ChardevBackend', {
    discriminator: 'type',
    tagName: 'ChardevBackendKind',
    branches: {
        file: wrapped('ChardevFile', {
            ...common,
            in: optional(str),
            out: str,
            append: optional(bool),
        }),
        serial: device,
        parallel: device,
        pipe: device,
        socket: wrapped('ChardevSocket', {
            ...common,
            addr: socketAddressLegacy,
            'tls-creds': optional(str),
            'tls-authz': optional(str),
            server: optional(bool),
            wait: optional(bool),
            nodelay: optional(bool),
            telnet: optional(bool),
            tn3270: optional(bool),
            websocket: optional(bool),
            reconnect: optional(int),
        }),
        udp: wrapped('ChardevUdp', {
            ...common,
            remote: socketAddressLegacy,
            local: optional(socketAddressLegacy),
        }),
        pty: plain,
        null: plain,
        mux: wrapped('ChardevMux', { ...common, chardev: str }),
        msmouse: plain,
        wctablet: plain,
        braille: plain,
        testdev: plain,
        stdio: wrapped('ChardevStdio', { ...common, signal: optional(bool) }),
        console: plain,
        spicevmc: wrapped('ChardevSpiceChannel', { ...common, type: str }),
        spiceport: wrapped('ChardevSpicePort', { ...common, fqdn: str }),
        'qemu-vdagent': wrapped('ChardevQemuVDAgent', {
            ...common,
            mouse: optional(bool),
            clipboard: optional(bool),
        }),
        dbus: wrapped('ChardevDBus', { ...common, name: str }),
        vc: wrapped('ChardevVC', {
            ...common,
            width: optional(int),
            height: optional(int),
            cols: optional(int),
            rows: optional(int),
        }),
        ringbuf,
        memory: ringbuf,
    },
});
export const chardevReturn = struct('ChardevReturn', { pty: optional(str) });
export const queryChardev = command({
    name: 'query-chardev',
    since: '0.14',
    doc: 'All character devices, what they are connected to, and whether a monitor uses them.',
    returns: list(struct('ChardevInfo', { label: str, filename: str, 'frontend-open': bool })),
});
export const queryChardevBackends = command({
    name: 'query-chardev-backends',
    since: '2.0',
    doc: 'Kinds of character devices that can be added.',
    returns: list(struct('ChardevBackendInfo', { name: str })),
});
export const dataFormat = enumeration('DataFormat', ['utf8', 'base64']);
export const ringbufWrite = command({
    name: 'ringbuf-write',
    since: '1.4',
    doc: 'Writes to a ring buffer; what does not fit any more falls out at the other end.',
    args: { device: str, data: str, format: optional(dataFormat) },
});
export const ringbufRead = command({
    name: 'ringbuf-read',
    since: '1.4',
    doc: 'Takes up to `size` bytes from a ring buffer. Bytes that are no UTF-8 are replaced.',
    args: { device: str, size: int, format: optional(dataFormat) },
    returns: str,
});
export const chardevAdd = command({
    name: 'chardev-add',
    since: '1.4',
    doc: 'Adds a character device.',
    args: { id: str, backend: chardevBackend },
    returns: chardevReturn,
});
export const chardevChange = command({
    name: 'chardev-change',
    since: '2.10',
    doc: 'Puts another device in the place of one that nobody uses; if it fails, neither is left.',
    args: { id: str, backend: chardevBackend },
    returns: chardevReturn,
});
export const chardevRemove = command({
    name: 'chardev-remove',
    since: '1.4',
    doc: 'Removes a character device that nobody uses.',
    args: { id: str },
});
export const chardevSendBreak = command({
    name: 'chardev-send-break',
    since: '2.10',
    doc: 'Sends a break, which none of the devices that are there can do: nothing happens.',
    args: { id: str },
});
