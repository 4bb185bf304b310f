// SPDX-License-Identifier: Apache-2.0
// The guest of the tour: writes at random to a node, without haste, until it is told to stop, and
// can stand still for a moment, so that a point in time has one clear content. Seed and count of
// its requests tell what it wrote: replayGuest() gives the content to anyone else.
import { type CancelTimer, type Clock, Permission, SeededRandom } from '../../base/index.js';
import type { Backend, Graph, Node } from '../../block/index.js';
import { DiskModel, GuestWriter } from '../../testing/index.js';

/** Pause between two requests: some 250 requests a second. */
const REST_MS = 4;

export class TourGuest {
  readonly #writer: GuestWriter;
  readonly #backend: Backend;
  readonly #clock: Clock;
  #running: Promise<void> | null = null;
  #stepCount = 0;
  #stopping = false;
  #failure: unknown = null;
  #cancelRest: CancelTimer = () => undefined;
  #endRest: () => void = () => undefined;

  private constructor(backend: Backend, writer: GuestWriter, clock: Clock) {
    this.#backend = backend;
    this.#writer = writer;
    this.#clock = clock;
  }

  static async attach(graph: Graph, node: Node, seed: number): Promise<TourGuest> {
    const backend = await graph.attach(node, 'guest', {
      taken: Permission.consistentRead | Permission.write,
      shared: Permission.all,
    });
    const model = new DiskModel(node.length);
    const writer = new GuestWriter({ disk: backend, model, random: new SeededRandom(seed) });
    return new TourGuest(backend, writer, graph.clock);
  }

  /** Requests acknowledged so far. */
  get stepCount(): number {
    return this.#stepCount;
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
      this.#stepCount += 1;
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

const NO_DISK = {
  write: (): void => undefined,
  writeZeroes: (): void => undefined,
  flush: (): void => undefined,
};

/** Does to `model` what a guest of that seed did in its first `stepCount` requests; gives bytes. */
export async function replayGuest(
  model: DiskModel,
  { seed, stepCount }: { seed: number; stepCount: number },
): Promise<number> {
  const writer = new GuestWriter({ disk: NO_DISK, model, random: new SeededRandom(seed) });
  for (let step = 0; step < stepCount; step += 1) await writer.step();
  return writer.writtenBytes;
}
