// SPDX-License-Identifier: Apache-2.0
// The tour's daemon, a process of its own: an engine that serves QMP on a unix socket, and a guest
// on one of its nodes, moved by messages of the process that started it. (A storage daemon with a
// guest inside: there is no NBD export yet through which a guest could come from outside.)
import { createEngine, type Engine } from '../../engine/index.js';
import { openDefaultHost } from '../../host/index.js';
import { QmpServer } from '../../qmp/index.js';
import { TourGuest } from './guest.js';

export type GuestOrder =
  | { readonly verb: 'attach'; readonly node: string; readonly seed: number }
  | { readonly verb: 'start' | 'stop' | 'detach' };

/** Sent once when the socket listens, then once for each order. */
export interface DaemonReport {
  readonly stepCount: number;
  readonly error?: string;
}

/** Serves until a client sends quit; the exit status. */
export async function runTourDaemon(socket: string): Promise<number> {
  const send = process.send?.bind(process);
  if (send === undefined) {
    process.stderr.write('blockwright tour: --serve is for the tour itself\n');
    return 1;
  }
  process.once('disconnect', () => process.exit(1));
  const engine = await createEngine({ host: openDefaultHost() });
  const server = new QmpServer(engine);
  await server.listen({ type: 'unix', path: socket });
  const orders = new Orders(engine);
  process.on('message', (order: GuestOrder) => {
    void orders.obey(order).then((report) => send(report));
  });
  send({ stepCount: 0 } satisfies DaemonReport);
  await engine.quitRequested;
  await engine.close();
  await server.close();
  process.removeAllListeners('disconnect');
  return 0;
}

class Orders {
  readonly #engine: Engine;
  #guest: TourGuest | null = null;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  async obey(order: GuestOrder): Promise<DaemonReport> {
    try {
      await this.#act(order);
      return { stepCount: this.#guest?.stepCount ?? 0 };
    } catch (error) {
      return { stepCount: 0, error: (error as Error).message };
    }
  }

  async #act(order: GuestOrder): Promise<void> {
    const { graph } = this.#engine;
    if (order.verb === 'attach') {
      this.#guest = await TourGuest.attach(graph, graph.require(order.node), order.seed);
    } else if (order.verb === 'start') this.#guest?.start();
    else if (order.verb === 'stop') await this.#guest?.stop();
    else await this.#guest?.detach();
  }
}
