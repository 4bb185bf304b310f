// SPDX-License-Identifier: Apache-2.0
// An engine of ours with its QMP server on a unix socket, in this process.

import { join } from 'node:path';
import type { Socket } from 'node:net';
import { createEngine } from '../../src/engine/index.js';
import type { Engine, ReferenceHabits } from '../../src/engine/index.js';
import { connectSocket, openDefaultHost } from '../../src/host/index.js';
import type { Host } from '../../src/host/index.js';
import { QmpServer } from '../../src/qmp/index.js';

export interface OwnDaemon extends AsyncDisposable {
  readonly engine: Engine;
  readonly server: QmpServer;
  readonly path: string;
  /** A new connection, greeting not yet read. */
  connect(): Promise<Socket>;
}

let count = 0;

export async function startOwnDaemon(
  directory: string,
  host?: Host,
  habits: Partial<ReferenceHabits> = {},
): Promise<OwnDaemon> {
  const engine = await createEngine({ host: host ?? openDefaultHost(), habits });
  const server = new QmpServer(engine);
  count += 1;
  const path = join(directory, `own-${count}.sock`);
  await server.listen({ type: 'unix', path });
  return {
    engine,
    server,
    path,
    connect: () => connectSocket({ type: 'unix', path }),
    async [Symbol.asyncDispose]() {
      await engine.close();
      await server.close();
    },
  };
}
