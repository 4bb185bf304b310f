// SPDX-License-Identifier: Apache-2.0
// --chardev: the streams that monitors speak on. A socket is bound when its option is reached, as
// scripts expect; clients that come before a monitor is attached wait, unread, and only a few.

import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { dirname } from 'node:path';

import { BlockError, errnoText } from '../../base/index.js';
import { connectSocket, listenSocket } from '../../host/index.js';
import type { SocketAddress, SocketListener } from '../../host/index.js';
import { duplexStreams } from '../../qmp/index.js';
import type { SessionStreams } from '../../qmp/index.js';

const WAITING_CLIENTS = 16;

export interface Chardev {
  readonly id: string;
  /** Hands over every client, those that wait already first; false when one is attached. */
  attach(serve: (streams: SessionStreams) => void): boolean;
  close(): Promise<void>;
}

/** Binds or connects; with `wait=on` returns when the first client is there, or at `quit`. */
export async function openChardev(text: string, quit: Promise<void>): Promise<Chardev> {
  const options = parseChardev(text);
  const id = options.get('id');
  if (id === undefined) throw invalid('chardev: no id specified');
  const backend = options.get('backend') ?? '';
  switch (backend) {
    case 'stdio':
      refuseOthers(options, ['backend', 'id', 'signal']);
      return new StdioChardev(id);
    case 'socket':
      refuseOthers(options, ['backend', 'id', 'path', 'host', 'port', 'server', 'wait', 'nodelay']);
      return openSocket({ id, options, quit });
    default:
      throw invalid(`'${backend}' is not a valid char driver name`);
  }
}

type Options = ReadonlyMap<string, string>;

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}

/** `backend,key=value,flag,noflag`; a doubled comma stands for one. */
function parseChardev(text: string): Options {
  const options = new Map<string, string>();
  const pieces = text.replaceAll(',,', '\0').split(',');
  for (const [index, raw] of pieces.entries()) {
    const piece = raw.replaceAll('\0', ',');
    const equals = piece.indexOf('=');
    if (equals >= 0) options.set(piece.slice(0, equals), piece.slice(equals + 1));
    else if (index === 0) options.set('backend', piece);
    else if (piece.startsWith('no') && piece !== 'nodelay') options.set(piece.slice(2), 'off');
    else options.set(piece, 'on');
  }
  return options;
}

function refuseOthers(options: Options, known: readonly string[]): void {
  for (const name of options.keys()) {
    if (!known.includes(name)) throw invalid(`Invalid parameter '${name}'`);
  }
}

function flag(options: Options, name: string, fallback: boolean): boolean {
  const value = options.get(name);
  if (value === undefined) return fallback;
  if (value !== 'on' && value !== 'off') {
    throw invalid(`Parameter '${name}' expects 'on' or 'off'`);
  }
  return value === 'on';
}

function socketAddress(options: Options): SocketAddress {
  const path = options.get('path');
  if (path !== undefined) return { type: 'unix', path };
  const port = options.get('port');
  if (port === undefined) throw invalid('chardev: socket: no path or port given');
  if (!/^\d+$/.test(port) || Number(port) > 65_535) {
    throw invalid(`address resolution failed for port '${port}': not a port number`);
  }
  return { type: 'inet', host: options.get('host') ?? '127.0.0.1', port: Number(port) };
}

async function openSocket(request: {
  readonly id: string;
  readonly options: Options;
  readonly quit: Promise<void>;
}): Promise<Chardev> {
  const { id, options, quit } = request;
  const server = flag(options, 'server', false);
  const wait = flag(options, 'wait', true);
  if (!server && options.has('wait')) {
    throw invalid("'wait' option is incompatible with socket in client connect mode");
  }
  const address = socketAddress(options);
  const chardev = new SocketChardev(id);
  const verb = server ? 'bind' : 'connect';
  try {
    if (server) await chardev.listen(address);
    else chardev.accept(await connectSocket(address));
  } catch (error) {
    if (!(error instanceof BlockError) || error.context.errno === undefined) throw error;
    const place = address.type === 'unix' ? ` to ${address.path}` : '';
    const reason = errnoText(bindErrno(address, error.context.errno));
    throw new BlockError(error.kind, `Failed to ${verb} socket${place}: ${reason}`);
  }
  if (server && wait) await Promise.race([chardev.firstClient, quit]);
  return chardev;
}

/** Node says EACCES for a folder that is not there. */
function bindErrno(address: SocketAddress, errno: string): string {
  const isMissing = address.type === 'unix' && !existsSync(dirname(address.path));
  return errno === 'EACCES' && isMissing ? 'ENOENT' : errno;
}

class SocketChardev implements Chardev {
  readonly id: string;
  readonly firstClient: Promise<void>;
  readonly #waiting: Socket[] = [];
  readonly #sockets = new Set<Socket>();
  #listener: SocketListener | null = null;
  #serve: ((streams: SessionStreams) => void) | null = null;
  #arrived: (() => void) | null = null;

  constructor(id: string) {
    this.id = id;
    this.firstClient = new Promise((resolve) => {
      this.#arrived = resolve;
    });
  }

  async listen(address: SocketAddress): Promise<void> {
    this.#listener = await listenSocket(address, (socket) => this.accept(socket));
  }

  accept(socket: Socket): void {
    this.#arrived?.();
    this.#sockets.add(socket);
    // It may break before a session listens; then it is closed as well.
    socket.on('error', () => undefined);
    socket.once('close', () => this.#sockets.delete(socket));
    if (this.#serve !== null) {
      this.#serve(duplexStreams(socket));
      return;
    }
    if (this.#waiting.length >= WAITING_CLIENTS) {
      socket.destroy();
      return;
    }
    this.#waiting.push(socket);
  }

  attach(serve: (streams: SessionStreams) => void): boolean {
    if (this.#serve !== null) return false;
    this.#serve = serve;
    for (const socket of this.#waiting.splice(0)) serve(duplexStreams(socket));
    return true;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await this.#listener?.close();
  }
}

class StdioChardev implements Chardev {
  readonly id: string;
  #attached = false;

  constructor(id: string) {
    this.id = id;
  }

  attach(serve: (streams: SessionStreams) => void): boolean {
    if (this.#attached) return false;
    this.#attached = true;
    serve({ input: process.stdin, output: process.stdout });
    return true;
  }

  close(): Promise<void> {
    process.stdin.destroy();
    return Promise.resolve();
  }
}
