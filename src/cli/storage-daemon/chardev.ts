// SPDX-License-Identifier: Apache-2.0
// --chardev: how a character device is spelt on the command line.

import type { ChardevBackendValue } from '../../api/index.js';
import { BlockError } from '../../base/index.js';
import { parseSizeText } from '../../schema/index.js';

export interface NamedChardev {
  readonly id: string;
  readonly backend: ChardevBackendValue;
}

type Options = ReadonlyMap<string, string>;

const IDENTIFIER = /^[A-Za-z][A-Za-z0-9\-._]*$/;

/** Options that any backend may be given, whether it looks at them or not. */
const KNOWN = new Set(
  (
    'backend id path host port to ipv4 ipv6 fd localaddr localport wait server delay nodelay ' +
    'reconnect telnet tn3270 tls-creds tls-authz websocket width height cols rows mux signal ' +
    'name debug size chardev append logfile logappend mouse clipboard abstract tight'
  ).split(' '),
);

/** `backend,key=value,…`; throws kind `invalid-option`. */
export function readChardev(text: string): NamedChardev {
  const options = parseChardev(text);
  const id = options.get('id');
  for (const name of options.keys()) {
    if (!KNOWN.has(name)) throw invalid(`Invalid parameter '${name}'`);
  }
  if (id === undefined) throw invalid('chardev: no id specified');
  if (!IDENTIFIER.test(id)) throw invalid("Parameter 'id' expects an identifier");
  if (!options.has('backend')) throw invalid(`chardev: "${id}" missing backend`);
  return { id, backend: backendOf(options) };
}

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

function backendOf(options: Options): ChardevBackendValue {
  const type = options.get('backend') ?? '';
  const common = commonOf(options);
  switch (type) {
    case 'null':
      return { type, data: common };
    case 'stdio':
      return { type, data: { ...common, signal: flag(options, 'signal') ?? true } };
    case 'file': {
      const append = flag(options, 'append') ?? false;
      const out = required(options, 'path', 'chardev: file: no filename given');
      return { type, data: { ...common, out, append } };
    }
    case 'pipe': {
      const device = required(options, 'path', 'chardev: pipe: no device path given');
      return { type, data: { ...common, device } };
    }
    case 'ringbuf':
    case 'memory':
      return { type, data: { ...common, ...sizeOf(options) } };
    case 'socket':
      return { type, data: { ...common, ...socketData(options) } };
    default:
      throw invalid(`'${type}' is not a valid char driver name`);
  }
}

function commonOf(options: Options): { readonly logfile?: string } {
  if (flag(options, 'mux') === true) {
    throw new BlockError('unsupported', "'mux' of a chardev is not supported");
  }
  const logfile = options.get('logfile');
  return logfile === undefined ? {} : { logfile };
}

function sizeOf(options: Options): { readonly size?: number | bigint } {
  const text = options.get('size');
  if (text === undefined) return {};
  const size = parseSizeText(text);
  if (size !== undefined) return { size };
  throw invalid("Parameter 'size' expects a non-negative number below 2^64");
}

type SocketData = Extract<ChardevBackendValue, { readonly type: 'socket' }>['data'];

function socketData(options: Options): SocketData {
  const server = flag(options, 'server') ?? false;
  const wait = flag(options, 'wait');
  const reconnect = options.get('reconnect');
  const data: Record<string, unknown> = { addr: addressOf(options), server };
  for (const name of ['nodelay', 'telnet', 'tn3270', 'websocket']) {
    const value = flag(options, name);
    if (value !== undefined) data[name] = value;
  }
  for (const name of ['tls-creds', 'tls-authz']) {
    if (options.has(name)) data[name] = options.get(name);
  }
  // A server waits unless it is told not to; over QMP it is the other way round.
  if (server) data['wait'] = wait ?? true;
  else if (wait !== undefined) data['wait'] = wait;
  if (reconnect !== undefined) data['reconnect'] = integer('reconnect', reconnect);
  return data as unknown as SocketData;
}

function addressOf(options: Options): SocketData['addr'] {
  const path = options.get('path');
  if (path !== undefined) {
    const abstract = flag(options, 'abstract') ?? false;
    return { type: 'unix', data: { path, abstract } };
  }
  const host = options.get('host');
  const port = options.get('port');
  if (port === undefined) {
    throw invalid(`chardev: socket: no ${host === undefined ? 'path or port' : 'port'} given`);
  }
  const to = options.get('to');
  return {
    type: 'inet',
    data: {
      host: host ?? '127.0.0.1',
      port,
      ...(to === undefined ? {} : { to: integer('to', to) }),
    },
  };
}

function integer(name: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw invalid(`Parameter '${name}' expects a number`);
}

function required(options: Options, name: string, complaint: string): string {
  const value = options.get(name);
  if (value === undefined) throw invalid(complaint);
  return value;
}

function flag(options: Options, name: string): boolean | undefined {
  const value = options.get(name);
  if (value === undefined) return undefined;
  if (value !== 'on' && value !== 'off') {
    throw invalid(`Parameter '${name}' expects 'on' or 'off'`);
  }
  return value === 'on';
}
