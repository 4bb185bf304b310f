// SPDX-License-Identifier: Apache-2.0
// Stream sockets, unix and TCP, for servers and clients of every protocol.
//
// A listener on a unix path removes a stale socket first (one that nobody answers on), never a
// file of another kind and never a socket in use; it removes its own when it closes. Closing a
// listener ends its connections too, so that close() cannot wait for a silent peer.

import { existsSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';

import { BlockError, errnoText, kindOfErrno } from '../base/index.js';

export type SocketAddress =
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'inet'; readonly host: string; readonly port: number };

export interface SocketListener {
  /** The address bound: host as a number, and the real port when 0 was asked for. */
  readonly address: SocketAddress;
  readonly connectionCount: number;
  /** Stops listening and ends all connections; idempotent. */
  close(): Promise<void>;
}

/** The longest path of a unix socket on Linux, in bytes. */
const UNIX_PATH_BYTES = 107;

export async function listenSocket(
  address: SocketAddress,
  accept: (socket: Socket) => void,
): Promise<SocketListener> {
  if (address.type === 'unix') await removeStale(checkedPath(address.path));
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    if (address.type === 'inet') socket.setNoDelay(true);
    accept(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(socketError('listen on', address, error)));
    server.listen(nodeAddress(address), resolve);
  });
  // Errors after this are those of single accepts (out of descriptors); listening goes on.
  server.on('error', () => undefined);
  let closing: Promise<void> | null = null;
  return {
    address: boundAddress(server, address),
    get connectionCount() {
      return sockets.size;
    },
    close: () => (closing ??= closeAll(server, sockets)),
  };
}

/** Rejects with the signal's reason when that comes before the connection stands. */
export function connectSocket(address: SocketAddress, signal?: AbortSignal): Promise<Socket> {
  if (address.type === 'unix') checkedPath(address.path);
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error);
      return;
    }
    const socket = connect(nodeAddress(address));
    const abort = (): void => {
      socket.destroy();
      reject(signal?.reason as Error);
    };
    signal?.addEventListener('abort', abort);
    const failed = (error: Error): void => reject(socketError('connect to', address, error));
    socket.once('error', failed);
    socket.once('close', () => signal?.removeEventListener('abort', abort));
    socket.once('connect', () => {
      signal?.removeEventListener('abort', abort);
      socket.off('error', failed);
      if (address.type === 'inet') socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

/** The address as it is written in messages: the path, or host and port. */
export function describeAddress(address: SocketAddress): string {
  if (address.type === 'unix') return address.path;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

function nodeAddress(address: SocketAddress): { path: string } | { host: string; port: number } {
  return address.type === 'unix'
    ? { path: address.path }
    : { host: address.host, port: address.port };
}

function boundAddress(server: Server, address: SocketAddress): SocketAddress {
  const bound = server.address();
  if (address.type === 'unix' || bound === null || typeof bound === 'string') return address;
  return { type: 'inet', host: bound.address, port: bound.port };
}

function closeAll(server: Server, sockets: ReadonlySet<Socket>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    for (const socket of sockets) socket.destroy();
  });
}

function checkedPath(path: string): string {
  const mistake = pathMistake(path);
  if (mistake === null) return path;
  throw new BlockError('invalid-option', `UNIX socket path '${path}' ${mistake}`, { path });
}

function pathMistake(path: string): string | null {
  if (path === '') return 'is empty';
  if (path.includes('\0')) return 'holds a zero byte';
  if (Buffer.byteLength(path) <= UNIX_PATH_BYTES) return null;
  return `is too long: at most ${UNIX_PATH_BYTES} bytes are allowed`;
}

async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined || !found.isSocket()) return;
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => resolve(true));
    // Any other error (a full queue, no permission) says that somebody may be there.
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
    probe.once('connect', () => probe.destroy());
  });
  if (answered) return;
  try {
    unlinkSync(path);
  } catch {
    // Listening there fails now, and says so.
  }
}

/** Listening in a folder that is not there is reported as EACCES. */
function isFolderMissing(address: SocketAddress): boolean {
  return address.type === 'unix' && !existsSync(dirname(address.path));
}

function socketError(verb: string, address: SocketAddress, error: Error): BlockError {
  const code = (error as NodeJS.ErrnoException).code ?? 'EIO';
  const errno = code === 'EACCES' && isFolderMissing(address) ? 'ENOENT' : code;
  const text = SOCKET_ERRNO_TEXT[errno] ?? errnoText(errno);
  const message = `Failed to ${verb} '${describeAddress(address)}': ${text}`;
  return new BlockError(kindOfErrno(errno), message, { errno, cause: error });
}

const SOCKET_ERRNO_TEXT: Readonly<Record<string, string>> = {
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  ECONNREFUSED: 'Connection refused',
  ENOTFOUND: 'Name or service not known',
  ETIMEDOUT: 'Connection timed out',
  ENOTSOCK: 'Socket operation on non-socket',
};
