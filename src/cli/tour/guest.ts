// SPDX-License-Identifier: Apache-2.0
// The guest of the tour: writes at random to a node, without haste, until it is told to stop, and
// can stand still for a moment, so that a point in time has one clear content.
import { type CancelTimer, type Clock, Permission, SeededRandom } from '../../base/index.js';
import type { Backend, Graph, Node } from '../../block/index.js';
import { type DiskModel, GuestWriter } from '../../testing/index.js';

/** Pause between two requests: some 250 requests a second. */
const REST_MS = 4;

export class TourGuest {
  readonly #writer: GuestWriter;
  readonly #backend: Backend;
  readonly #clock: Clock;
  #running: Promise<void> | null = null;
  #stopping = false;
  #failure: unknown = null;
  #cancelRest: CancelTimer = () => undefined;
  #endRest: () => void = () => undefined;

  private constructor(backend: Backend, writer: GuestWriter, clock: Clock) {
    this.#backend = backend;
    this.#writer = writer;
    this.#clock = clock;
  }

  static async attach(graph: Graph, node: Node, guest: { model: DiskModel; seed: number }) {
    const backend = await graph.attach(node, 'guest', {
      taken: Permission.consistentRead | Permission.write,
      shared: Permission.all,
    });
    const random = new SeededRandom(guest.seed);
    const writer = new GuestWriter({ disk: backend, model: guest.model, random });
    return new TourGuest(backend, writer, graph.clock);
  }

  get writtenBytes(): number {
    return this.#writer.writtenBytes;
  }

  start(): void {
    this.#stopping = false;
    this.#running = this.#run().catch((failure: unknown) => {
      this.#failure = failure;
    });
  }

  /** Resolves when no request is under way; throws what a request failed with. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#endRest();
    await this.#running;
    if (this.#failure !== null) throw this.#failure;
  }

  async detach(): Promise<void> {
    await this.stop();
    await this.#backend.flush();
    await this.#backend.detach();
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      await this.#writer.step();
      await this.#rest();
    }
  }

  #rest(): Promise<void> {
    return new Promise((resolve) => {
      this.#endRest = () => {
        this.#cancelRest();
        resolve();
      };
      this.#cancelRest = this.#clock.after(REST_MS, resolve);
    });
  }
}
