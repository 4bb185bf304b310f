// SPDX-License-Identifier: Apache-2.0
// Stream sockets, unix and TCP, for servers and clients of every protocol.
//
// A listener on a unix path removes a stale socket first (one that nobody answers on), never a
// file of another kind and never a socket in use; it removes its own when it closes. Closing a
// listener ends its connections too, so that close() cannot wait for a silent peer.
import { existsSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { dirname } from 'node:path';
import { BlockError, errnoText, kindOfErrno } from '../base/index.js';
/** The longest path of a unix socket on Linux, in bytes. */
const UNIX_PATH_BYTES = 107;
export async function listenSocket(address, accept) {
    if (address.type === 'unix')
        await removeStale(checkedPath(address.path));
    const sockets = new Set();
    const server = createServer((socket) => {
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
        if (address.type === 'inet')
            socket.setNoDelay(true);
        accept(socket);
    });
    await new Promise((resolve, reject) => {
        server.once('error', (error) => reject(socketError('listen on', address, error)));
        server.listen(nodeAddress(address), resolve);
    });
    // Errors after this are those of single accepts (out of descriptors); listening goes on.
    server.on('error', () => undefined);
    let closing = null;
    return {
        address: boundAddress(server, address),
        get connectionCount() {
            return sockets.size;
        },
        close: () => (closing ??= closeAll(server, sockets)),
    };
}
/** Rejects with the signal's reason when that comes before the connection stands. */
export function connectSocket(address, signal) {
    if (address.type === 'unix')
        checkedPath(address.path);
    return new Promise((resolve, reject) => {
        if (signal?.aborted === true) {
            reject(signal.reason);
            return;
        }
        const socket = connect(nodeAddress(address));
        const abort = () => {
            socket.destroy();
            reject(signal?.reason);
        };
        signal?.addEventListener('abort', abort);
        const failed = (error) => reject(socketError('connect to', address, error));
        socket.once('error', failed);
        socket.once('close', () => signal?.removeEventListener('abort', abort));
        socket.once('connect', () => {
            signal?.removeEventListener('abort', abort);
            socket.off('error', failed);
            if (address.type === 'inet')
                socket.setNoDelay(true);
            resolve(socket);
        });
    });
}
/** The address as it is written in messages: the path, or host and port. */
export function describeAddress(address) {
    if (address.type === 'unix')
        return address.path;
    const host = address.host.includes(':') ? `[${address.host}]` : address.host;
    return `${host}:${address.port}`;
}
function nodeAddress(address) {
    return address.type === 'unix'
        ? { path: address.path }
        : { host: address.host, port: address.port };
}
function boundAddress(server, address) {
    const bound = server.address();
    if (address.type === 'unix' || bound === null || typeof bound === 'string')
        return address;
    return { type: 'inet', host: bound.address, port: bound.port };
}
function closeAll(server, sockets) {
    return new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets)
            socket.destroy();
    });
}
function checkedPath(path) {
    if (Buffer.byteLength(path) > UNIX_PATH_BYTES || path.includes('\0')) {
        throw new BlockError('invalid-option', `UNIX socket path '${path}' is too long: at most ${UNIX_PATH_BYTES} bytes are allowed`, { path });
    }
    return path;
}
async function removeStale(path) {
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found === undefined || !found.isSocket())
        return;
    const answered = await new Promise((resolve) => {
        const probe = connect({ path });
        probe.once('connect', () => resolve(true));
        // Any other error (a full queue, no permission) says that somebody may be there.
        probe.once('error', (error) => resolve(error.code !== 'ECONNREFUSED'));
        probe.once('connect', () => probe.destroy());
    });
    if (answered)
        return;
    try {
        unlinkSync(path);
    }
    catch {
        // Listening there fails now, and says so.
    }
}
/** Listening in a folder that is not there is reported as EACCES. */
function isFolderMissing(address) {
    return address.type === 'unix' && !existsSync(dirname(address.path));
}
function socketError(verb, address, error) {
    const code = error.code ?? 'EIO';
    const errno = code === 'EACCES' && isFolderMissing(address) ? 'ENOENT' : code;
    const text = SOCKET_ERRNO_TEXT[errno] ?? errnoText(errno);
    const message = `Failed to ${verb} '${describeAddress(address)}': ${text}`;
    return new BlockError(kindOfErrno(errno), message, { errno, cause: error });
}
const SOCKET_ERRNO_TEXT = {
    EADDRINUSE: 'Address already in use',
    EADDRNOTAVAIL: 'Cannot assign requested address',
    ECONNREFUSED: 'Connection refused',
    ENOTFOUND: 'Name or service not known',
    ETIMEDOUT: 'Connection timed out',
    ENOTSOCK: 'Socket operation on non-socket',
};
