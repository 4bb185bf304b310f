// SPDX-License-Identifier: Apache-2.0
// The QMP server of an engine: listens on sockets, or serves one pair of streams.

import type { SocketAddress, SocketListener } from '../host/index.js';
import { listenSocket } from '../host/index.js';
import type { Engine } from '../engine/index.js';
import { duplexStreams, QmpSession } from './session.js';
import type { SessionOptions, SessionStreams } from './session.js';

export class QmpServer implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #options: SessionOptions;
  readonly #listeners: SocketListener[] = [];
  readonly #sessions = new Set<QmpSession>();

  constructor(engine: Engine, options: SessionOptions = {}) {
    this.#engine = engine;
    this.#options = options;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Listens; gives the address bound (the real port when 0 was asked for). */
  async listen(address: SocketAddress): Promise<SocketAddress> {
    const listener = await listenSocket(
      address,
      (socket) => void this.serve(duplexStreams(socket)),
    );
    this.#listeners.push(listener);
    return listener.address;
  }

  /** Serves one client on streams that are already there (standard input and output, a test). */
  serve(streams: SessionStreams): QmpSession {
    const session = new QmpSession(this.#engine, streams, this.#options);
    this.#sessions.add(session);
    void session.ended.then(() => this.#sessions.delete(session));
    return session;
  }

  /** Hands over what was sent, ends all sessions and stops listening. */
  async close(): Promise<void> {
    await Promise.all([...this.#sessions].map((session) => session.close()));
    await Promise.all(this.#listeners.splice(0).map((listener) => listener.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
