// SPDX-License-Identifier: Apache-2.0
// Blockwright's public entry: an engine, its QMP server, and a shortcut to open one image.
//
// The client has its own entry (blockwright/client), which loads no engine.

import { createEngine } from './engine/index.js';
import type { Engine, EngineOptions } from './engine/index.js';
import type { Node, OpenPolicy } from './block/index.js';
import { openDefaultHost } from './host/index.js';
import type { SocketAddress } from './host/index.js';
import { QmpServer } from './qmp/index.js';

export { BlockError } from './base/index.js';
export type { Clock, ErrorKind, Random } from './base/index.js';
export type { Backend, Graph, Node, NodeOptions, OpenPolicy } from './block/index.js';
export { createEngine, Engine } from './engine/index.js';
export type { EngineEvent, EngineOptions } from './engine/index.js';
export { openDefaultHost } from './host/index.js';
export type { Host, SocketAddress } from './host/index.js';
export { QmpServer } from './qmp/index.js';

export interface Served extends AsyncDisposable {
  readonly engine: Engine;
  readonly server: QmpServer;
  readonly address: SocketAddress;
  /** Resolves when a client sent `quit` (or the engine was closed). */
  readonly quitRequested: Promise<void>;
  /** What disposing does: ends the jobs, flushes and closes all, hangs up. */
  close(): Promise<void>;
}

/** An engine on this machine's files with a QMP server; dispose of it to close all cleanly. */
export async function serve(
  address: SocketAddress,
  options: Partial<EngineOptions> = {},
): Promise<Served> {
  const engine = await createEngine({ host: openDefaultHost(), ...options });
  const server = new QmpServer(engine);
  try {
    const bound = await server.listen(address);
    const close = async (): Promise<void> => {
      try {
        await engine.close();
      } finally {
        await server.close();
      }
    };
    const { quitRequested } = engine;
    const asyncDispose = { [Symbol.asyncDispose]: close };
    return { engine, server, address: bound, quitRequested, close, ...asyncDispose };
  } catch (error) {
    await engine.close();
    throw error;
  }
}

export interface OpenedImage extends AsyncDisposable {
  readonly engine: Engine;
  readonly node: Node;
  /** What disposing does: flushes and closes. */
  close(): Promise<void>;
}

export interface OpenImageOptions {
  /** Absent: looked for in the file's first bytes. */
  readonly format?: string;
  /** True unless said otherwise. */
  readonly readOnly?: boolean;
  readonly policy?: OpenPolicy;
}

/** Opens one image with an engine of its own; dispose of it to flush and close. */
export async function openImage(
  path: string,
  options: OpenImageOptions = {},
): Promise<OpenedImage> {
  const engine = await createEngine({ host: openDefaultHost() });
  try {
    const { format = null, readOnly = true, policy = {} } = options;
    const node = await engine.graph.openImage(path, format, readOnly, policy);
    const close = (): Promise<void> => engine.close();
    return { engine, node, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await engine.close();
    throw error;
  }
}
